"""A plain Redis client for tests: commands as a JSON list on stdin, replies as one on stdout."""

import base64
import json
import sys

import redis


def value_in(value):
    return base64.b64decode(value["$bytes"]) if isinstance(value, dict) else value


def value_out(value):
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return [value_out(inner) for inner in value]
    if isinstance(value, dict):
        return {str(value_out(name)): value_out(inner) for name, inner in value.items()}
    return value


def main():
    client = redis.Redis.from_url(sys.argv[1])
    # As the server sends it: redis-py's own reading of entries loses the order and duplicates of fields.
    client.response_callbacks.clear()
    replies = [client.execute_command(*map(value_in, command)) for command in json.load(sys.stdin)]
    json.dump([value_out(reply) for reply in replies], sys.stdout)


main()
