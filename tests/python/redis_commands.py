"""A plain Redis client for tests: operations as a JSON list on stdin, answers as one on stdout."""

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


def serve(client, operation):
    """Answers as many requests as there are answers, in turn, and tells what was asked."""
    stream, asked = operation["serve"], []
    for replies in operation["answers"]:
        read = ["XREADGROUP", "GROUP", "longshore", "plain", "COUNT", 1, "BLOCK", 30_000, "STREAMS", stream, ">"]
        [[_, [[entry, fields]]]] = client.execute_command(*read)
        request = dict(zip(fields[::2], fields[1::2]))
        for reply in replies:
            given = {"correlation_id": request[b"correlation_id"], **reply}
            flat = [word for pair in given.items() for word in pair]
            client.execute_command("XADD", request[b"reply_to"], "NOMKSTREAM", "*", *flat)
        client.execute_command("XDEL", stream, entry)
        client.execute_command("XACK", stream, "longshore", entry)
        asked.append(request)
    return asked


def answer(client, operation):
    if isinstance(operation, dict):
        return serve(client, operation)
    return client.execute_command(*map(value_in, operation))


def main():
    client = redis.Redis.from_url(sys.argv[1])
    # As the server sends it: redis-py's own reading of entries loses the order and duplicates of fields.
    client.response_callbacks.clear()
    answers = [answer(client, operation) for operation in json.load(sys.stdin)]
    json.dump([value_out(answer) for answer in answers], sys.stdout)


main()
