"""The same for functions-framework, which hands over a Flask request."""

import json


def hello(request):
    answer = {"statusCode": 200, "body": "hello " + request.get_json()["name"]}
    return json.dumps(answer), 200, {"Content-Type": "application/json"}
