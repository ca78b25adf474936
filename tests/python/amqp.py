"""A plain AMQP client for tests: operations as a JSON list on stdin, answers as one on stdout."""

import base64
import datetime
import decimal
import json
import sys
import time

import pika


def value_in(value):
    if isinstance(value, dict):
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        if "$timestamp" in value:
            return datetime.datetime.fromtimestamp(value["$timestamp"], datetime.timezone.utc)
        if "$decimal" in value:
            return decimal.Decimal(value["$decimal"])
        return {name: value_in(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [value_in(inner) for inner in value]
    return value


def value_out(value):
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"$timestamp": int(value.replace(tzinfo=datetime.timezone.utc).timestamp())}
    if isinstance(value, decimal.Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, dict):
        return {name: value_out(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [value_out(inner) for inner in value]
    return value


def shown(properties, body):
    # The broker adds its counter to what it delivers; it was not published.
    if properties.headers and properties.headers.pop("x-delivery-count", None) is not None:
        properties.headers = properties.headers or None
    set_ones = {name: value for name, value in vars(properties).items() if value is not None}
    try:
        body = body.decode()
    except UnicodeDecodeError:
        pass
    return {"properties": value_out(set_ones), "body": value_out(body)}


def publish(channel, operation):
    properties = pika.BasicProperties(**value_in(operation.get("properties", {})))
    body = value_in(operation["body"])
    channel.basic_publish(
        operation.get("exchange", ""),
        operation.get("to", ""),
        body if isinstance(body, bytes) else body.encode(),
        properties,
        mandatory=True,
    )
    return True


def get(channel, operation):
    """The head of a queue; it is back there once this process has ended, unless "take" says otherwise."""
    found, properties, body = channel.basic_get(operation["from"], auto_ack=operation.get("take", False))
    return None if found is None else shown(properties, body)


def declare(channel, operation):
    name, arguments = operation["declare"], operation.get("arguments", {})
    if "exchange_type" in operation:
        channel.exchange_declare(name, operation["exchange_type"], durable=True, arguments=arguments)
    else:
        channel.queue_declare(name, durable=operation.get("durable", True), arguments=arguments)
    return True


def ask(channel, operation):
    """Asks at once whatever there is to ask, waits for so many replies, and for one too many."""
    replies, name = [], operation["inbox"]
    if name != "amq.rabbitmq.reply-to":
        name = channel.queue_declare(name, exclusive=True).method.queue
    channel.basic_consume(name, lambda _channel, _method, *reply: replies.append(shown(*reply)), auto_ack=True)
    for message in operation["messages"]:
        message.setdefault("properties", {})["reply_to"] = name
        publish(channel, {"to": operation["ask"], **message})
    begun = time.monotonic()
    while len(replies) < operation["replies"] and time.monotonic() < begun + 30:
        channel.connection.process_data_events(time_limit=0.1)
    channel.connection.process_data_events(time_limit=0.5)
    return replies


def serve(channel, operation):
    """Answers as many requests as there are answers, in turn, and tells what was asked."""
    answers, asked = operation["answers"], []
    for method, properties, body in channel.consume(operation["serve"], inactivity_timeout=30):
        if method is None:
            break
        for reply in answers[len(asked)]:
            set_ones = {"correlation_id": properties.correlation_id, **value_in(reply.get("properties", {}))}
            # Never mandatory: RabbitMQ has no queue for a client that waits for direct replies.
            channel.basic_publish("", properties.reply_to, reply["body"], pika.BasicProperties(**set_ones))
        channel.basic_ack(method.delivery_tag)
        asked.append(shown(properties, body))
        if len(asked) == len(answers):
            break
    channel.cancel()
    return asked


def answer(channel, operation):
    if "ask" in operation:
        return ask(channel, operation)
    if "serve" in operation:
        return serve(channel, operation)
    if "declare" in operation:
        return declare(channel, operation)
    if "body" in operation:
        return publish(channel, operation)
    return get(channel, operation)


def main():
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
    channel = connection.channel()
    channel.confirm_delivery()
    answers = [answer(channel, operation) for operation in json.load(sys.stdin)]
    connection.close()
    json.dump(answers, sys.stdout)


main()
