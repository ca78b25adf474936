use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::*;

mod traps;

/// Long enough for anything that is going to happen on a loop-back connection.
const NEVER: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(10);

/// Answers every connection with what it receives; stops at drop of the runtime.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                tokio::io::copy(&mut reads, &mut writes).await
            });
        }
    });
    addr
}

async fn proxy() -> Proxy {
    Proxy::start(echo_server().await)
        .await
        .expect("the proxy starts")
}

async fn client(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("accepted");
    echo(&mut stream, b"hello").await;
    stream
}

async fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("written");
    expect(stream, bytes).await;
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut answer = vec![0; bytes.len()];
    timeout(SOON, stream.read_exact(&mut answer))
        .await
        .expect("an answer in time")
        .expect("read");
    assert_eq!(answer, bytes);
}

async fn silent(stream: &mut TcpStream) -> bool {
    timeout(NEVER, stream.read(&mut [0])).await.is_err()
}

async fn end(stream: &mut TcpStream) -> io::Result<usize> {
    timeout(SOON, stream.read(&mut [0]))
        .await
        .expect("an end in time")
}

async fn reset(stream: &mut TcpStream) -> bool {
    end(stream)
        .await
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

async fn settled(proxy: &Proxy, live: usize) {
    let all_gone = async {
        while proxy.counters().live != live {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, all_gone)
        .await
        .expect("the connections are forgotten");
}

#[tokio::test]
async fn it_passes_bytes_both_ways_and_counts_them() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    let large: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let (mut reads, mut writes) = stream.split();
    let mut answer = vec![0; large.len()];
    let (written, read) = tokio::join!(writes.write_all(&large), reads.read_exact(&mut answer));
    written.expect("written");
    read.expect("read");
    assert!(answer == large);
    let counters = proxy.counters();
    assert_eq!((counters.accepted, counters.live), (1, 1));
    assert_eq!(
        (counters.bytes_to_server, counters.bytes_to_client),
        (1_000_005, 1_000_005)
    );
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_its_answer() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    stream.write_all(b"last words").await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("a clean end");
    assert_eq!(answer, b"last words");
    settled(&proxy, 0).await;
}

#[tokio::test]
async fn new_connections_are_refused_and_existing_ones_go_on() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.refuse_new().await;
    let error = TcpStream::connect(proxy.addr()).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    echo(&mut stream, b"still here").await;
    proxy.pass().await.expect("listens again");
    client(&proxy).await;
}

#[tokio::test]
async fn a_frozen_connection_delivers_what_was_sent_meanwhile_once_it_passes_again() {
    let proxy = proxy().await;
    let mut existing = client(&proxy).await;
    proxy.set_both(Flow::Freeze);
    let mut new = TcpStream::connect(proxy.addr())
        .await
        .expect("accepted while frozen");
    for stream in [&mut existing, &mut new] {
        stream
            .write_all(b"late")
            .await
            .expect("the sockets are open");
        assert!(silent(stream).await);
    }
    assert_eq!(proxy.counters().bytes_to_server, 5);
    proxy.pass().await.expect("passes");
    expect(&mut existing, b"late").await;
    expect(&mut new, b"late").await;
}

#[tokio::test]
async fn a_frozen_connection_hides_that_its_client_has_gone() {
    let proxy = proxy().await;
    let stream = client(&proxy).await;
    proxy.set_both(Flow::Freeze);
    drop(stream);
    tokio::time::sleep(NEVER).await;
    assert_eq!(proxy.counters().live, 1);
    proxy.set_both(Flow::Pass);
    settled(&proxy, 0).await;
}

#[tokio::test]
async fn discarded_requests_never_reach_the_server_and_the_connection_cannot_go_on() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::ToServer, Flow::Discard);
    stream.write_all(b"lost").await.expect("written");
    assert!(silent(&mut stream).await);
    let counters = proxy.counters();
    assert_eq!(
        (counters.bytes_to_server, counters.discarded_to_server),
        (5, 4)
    );
    proxy.set(Direction::ToServer, Flow::Pass);
    assert!(reset(&mut stream).await);
}

#[tokio::test]
async fn discarded_answers_leave_the_requests_done() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::ToClient, Flow::Discard);
    stream.write_all(b"done").await.expect("written");
    assert!(silent(&mut stream).await);
    let counters = proxy.counters();
    assert_eq!(
        (counters.bytes_to_server, counters.discarded_to_client),
        (9, 4)
    );
}

#[tokio::test]
async fn a_direction_that_lost_nothing_survives_a_phase_of_discarding() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.set_both(Flow::Discard);
    proxy.set_both(Flow::Pass);
    echo(&mut stream, b"whole").await;
}

#[tokio::test]
async fn delayed_bytes_arrive_in_order_and_not_early_and_do_not_wait_for_each_other() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    let delay = Duration::from_millis(200);
    proxy.set(Direction::ToClient, Flow::Delay(delay));
    let start = Instant::now();
    for number in 0..10_u8 {
        stream.write_all(&[number]).await.expect("written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    expect(&mut stream, &(0..10).collect::<Vec<u8>>()).await;
    let took = start.elapsed();
    assert!(
        took >= delay + Duration::from_millis(180),
        "early: {took:?}"
    );
    assert!(took < delay * 10, "the delays added up: {took:?}");
}

#[tokio::test]
async fn a_limited_rate_is_kept() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::ToServer, Flow::Rate(10_000));
    let start = Instant::now();
    echo(&mut stream, &[7; 5_000]).await;
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(450) && took < Duration::from_secs(5),
        "500 ms were due: {took:?}"
    );
}

#[tokio::test]
async fn a_truncated_stream_ends_after_exactly_so_many_bytes() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.set(Direction::ToClient, Flow::Truncate(3));
    stream.write_all(b"abcdef").await.expect("written");
    expect(&mut stream, b"abc").await;
    assert!(matches!(end(&mut stream).await, Ok(0)));
}

#[tokio::test]
async fn all_connections_are_reset_or_closed_when_the_call_returns() {
    let proxy = proxy().await;
    let mut streams = [client(&proxy).await, client(&proxy).await];
    assert_eq!(proxy.reset_all().await, 2);
    assert_eq!(proxy.counters().live, 0);
    for stream in &mut streams {
        assert!(reset(stream).await);
    }
    let mut stream = client(&proxy).await;
    assert_eq!(proxy.close_all().await, 1);
    assert!(matches!(end(&mut stream).await, Ok(0)));
}

#[tokio::test]
async fn a_frozen_connection_can_be_reset() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    proxy.set_both(Flow::Freeze);
    assert_eq!(proxy.reset_all().await, 1);
    assert!(reset(&mut stream).await);
}

#[tokio::test]
async fn an_upstream_that_is_down_resets_the_client_and_is_counted() {
    let vacant = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port")
        .local_addr()
        .expect("bound");
    let proxy = Proxy::start(vacant)
        .await
        .expect("the upstream need not be up");
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("accepted");
    assert!(reset(&mut stream).await);
    assert_eq!(proxy.counters().upstream_failed, 1);
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections_and_its_port() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    let addr = proxy.addr();
    drop(proxy);
    assert!(matches!(end(&mut stream).await, Ok(0)));
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_url_keeps_its_credentials_and_path_on_the_way_through() {
    let proxy = proxy().await;
    let port = proxy.addr().port();
    assert_eq!(
        proxy.url("amqp://u:p@host:5672/%2f?heartbeat=5"),
        format!("amqp://u:p@127.0.0.1:{port}/%2f?heartbeat=5")
    );
    assert_eq!(
        proxy.url("redis://host"),
        format!("redis://127.0.0.1:{port}")
    );
}
