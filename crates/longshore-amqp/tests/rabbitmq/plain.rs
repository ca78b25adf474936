//! A client that is not ours.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions},
};

/// A connection with one channel, in confirm mode.
pub(crate) struct Plain {
    connection: Connection,
    pub(crate) channel: Channel,
}

impl Plain {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default());
        let connection = connection.await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        select.await.expect("confirms");
        Self {
            connection,
            channel,
        }
    }

    pub(crate) async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let publish =
            self.channel
                .basic_publish("".into(), queue.into(), options, body, properties);
        publish.await.expect("written").await.expect("confirmed");
    }

    pub(crate) async fn leave(self) {
        let left = self.connection.close(200, "left".into());
        left.await.expect("a farewell");
    }

    /// One that may be closed by a refusal.
    pub(crate) async fn new_channel(&self) -> Channel {
        let channel = self.connection.create_channel();
        channel.await.expect("a channel")
    }

    /// Takes one message for good.
    pub(crate) async fn take(&self, queue: &str) -> (BasicProperties, Vec<u8>) {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true });
        let got = got.await.expect("an answer").expect("a message").delivery;
        // RabbitMQ counts, in a header, what it hands out.
        let counted = got.properties.headers().clone().unwrap_or_default();
        let mut table = counted.inner().clone();
        table.remove("x-delivery-count");
        table.remove("x-acquired-count");
        let properties = match table.is_empty() {
            true => without_table(got.properties),
            false => got.properties.with_headers(table.into()),
        };
        (properties, got.data)
    }
}

fn without_table(properties: BasicProperties) -> BasicProperties {
    let mut bare = BasicProperties::default();
    if let Some(id) = properties.message_id() {
        bare = bare.with_message_id(id.clone());
    }
    bare
}
