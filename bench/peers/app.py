"""The function of the comparison, for emulators that run handlers as Lambda does."""


def handler(event, context):
    return {"statusCode": 200, "body": "hello " + event["name"]}
