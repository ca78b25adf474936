use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A connection to a server that greets and then says nothing more, and the server's end of it.
async fn silent() -> (Opened, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address");
    let options = ConnectOptions::default();
    let address = Address::parse(&format!("redis://{host}"), &options).expect("an address");
    let site = Site::new(address, options).expect("a site");
    let greeting = async {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut asked = [0; 1024];
        let _ = stream.read(&mut asked).await.expect("HELLO");
        let hello = b"%1\r\n$5\r\nproto\r\n:3\r\n";
        stream.write_all(hello).await.expect("an answer");
        stream
    };
    let dialled = site.dial(&site.address.hosts[0], None, 0);
    let (opened, stream) = tokio::join!(dialled, greeting);
    (opened.expect("a connection"), stream)
}

fn ping() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("PING");
    pipeline
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_redis_rs_never_answers_ends_with_its_connection() {
    let (mut opened, _stream) = silent().await;
    let down = opened.down.clone();
    let pipeline = ping();
    let asking = opened.exchange(&pipeline);
    let ending = async {
        tokio::task::yield_now().await;
        down.cancel();
    };
    let both = async { tokio::join!(asking, ending).0 };
    let answer = tokio::time::timeout(SOON, both).await.expect("an answer");
    assert!(answer.expect_err("nobody answered").is_io_error());
}

#[tokio::test]
async fn an_idle_connection_is_seen_to_end() {
    let (mut opened, stream) = silent().await;
    assert!(!opened.is_down());
    drop(stream);
    let seen = tokio::time::timeout(SOON, opened.down.cancelled()).await;
    seen.expect("it is noticed");
    assert!(opened.exchange(&ping()).await.is_err());
}
