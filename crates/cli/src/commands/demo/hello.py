# The Python function of `lacewing demo`.
import json
import platform


def lambda_handler(event, context):
    name = event.get("name", "world")
    print(json.dumps({"greeting": name, "memory": context.memory_limit_in_mb}))
    return {"message": f"Hello, {name}, from Python {platform.python_version()}"}
