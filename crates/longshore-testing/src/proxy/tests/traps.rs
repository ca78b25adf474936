//! Traps, damage and single connections, through sockets.

use super::*;

/// Frames of channel 0 as a server sends them: a start, and a confirm.
const START: &[u8] = b"\x01\0\0\0\0\0\x04\0\x0A\0\x0A\xCE";
const CONFIRM: &[u8] = b"\x01\0\0\0\0\0\x04\0\x3C\0\x50\xCE";

/// A proxied connection whose echo the proxy reads as what an AMQP server says.
async fn amqp(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("accepted");
    echo(&mut stream, START).await;
    stream
}

fn confirm(harm: Harm) -> Trap {
    Trap::method(Direction::ToClient, Method::BASIC_ACK, harm)
}

#[tokio::test]
async fn the_nth_method_is_left_out_once_over_all_connections() {
    let proxy = proxy().await;
    let mut streams = [amqp(&proxy).await, amqp(&proxy).await];
    proxy.trap(confirm(Harm::Lose).nth(3));
    for stream in &mut streams {
        echo(stream, CONFIRM).await;
    }
    streams[0].write_all(CONFIRM).await.expect("written");
    assert!(silent(&mut streams[0]).await);
    for stream in &mut streams {
        echo(stream, &CONFIRM.repeat(5)).await;
    }
    assert_eq!(proxy.counters().lost_methods, 1);
}

#[tokio::test]
async fn each_nth_method_is_left_out_until_the_proxy_passes() {
    let proxy = proxy().await;
    let mut stream = amqp(&proxy).await;
    proxy.trap(confirm(Harm::Lose).every(2));
    stream.write_all(&CONFIRM.repeat(6)).await.expect("written");
    expect(&mut stream, &CONFIRM.repeat(3)).await;
    assert!(silent(&mut stream).await);
    assert_eq!(proxy.counters().lost_methods, 3);
    proxy.pass().await.expect("passes");
    echo(&mut stream, &CONFIRM.repeat(6)).await;
}

#[tokio::test]
async fn what_comes_before_a_lost_reply_arrives_and_then_a_reset() {
    let proxy = proxy().await;
    let mut stream = client(&proxy).await;
    drop(stream);
    stream = TcpStream::connect(proxy.addr()).await.expect("accepted");
    echo(&mut stream, b"+OK\r\n").await;
    proxy.trap(Trap::reply(Harm::LoseThenReset).nth(2));
    echo(&mut stream, b"*1\r\n:1\r\n").await;
    stream.write_all(b":2\r\n:3\r\n").await.expect("written");
    assert!(reset(&mut stream).await);
    assert_eq!(proxy.counters().lost_replies, 1);
    settled(&proxy, 0).await;
}

#[tokio::test]
async fn a_held_answer_is_never_given_and_requests_go_on_until_the_reset() {
    let proxy = proxy().await;
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("accepted");
    echo(&mut stream, b"+OK\r\n").await;
    let hold = Duration::from_millis(800);
    let before = proxy.counters().bytes_to_server;
    let begun = Instant::now();
    proxy.trap(Trap::reply(Harm::LoseThenHold(hold)));
    for _ in 0..2 {
        stream.write_all(b":1\r\n").await.expect("written");
        assert!(silent(&mut stream).await);
    }
    assert_eq!(proxy.counters().bytes_to_server, before + 8);
    assert!(reset(&mut stream).await);
    assert!(begun.elapsed() >= hold, "{:?}", begun.elapsed());
    assert_eq!(proxy.counters().lost_replies, 1);
}

#[tokio::test]
async fn a_damaged_reply_has_a_first_byte_that_nobody_reads() {
    let proxy = proxy().await;
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("accepted");
    echo(&mut stream, b"+OK\r\n").await;
    proxy.trap(Trap::reply(Harm::Damage));
    stream.write_all(b":1\r\n:2\r\n").await.expect("written");
    expect(&mut stream, &[!b':', b'1', b'\r', b'\n']).await;
    expect(&mut stream, b":2\r\n").await;
    assert_eq!(proxy.counters().damaged, 1);
}

#[tokio::test]
async fn one_byte_of_each_connection_is_corrupted() {
    let proxy = proxy().await;
    let mut old = client(&proxy).await;
    proxy.set(Direction::ToClient, Flow::Corrupt(3));
    let mut new = TcpStream::connect(proxy.addr()).await.expect("accepted");
    for stream in [&mut old, &mut new] {
        for piece in [&b"ab"[..], b"cdef"] {
            stream.write_all(piece).await.expect("written");
        }
        expect(stream, &[b'a', b'b', b'c', !b'd', b'e', b'f']).await;
        echo(stream, b"whole again").await;
    }
    assert_eq!(proxy.counters().damaged, 2);
}

#[tokio::test]
async fn what_is_set_for_new_connections_leaves_the_old_ones_alone() {
    let proxy = proxy().await;
    let mut old = client(&proxy).await;
    proxy.set_new(Direction::ToClient, Flow::Corrupt(0));
    echo(&mut old, b"whole").await;
    let mut new = TcpStream::connect(proxy.addr()).await.expect("accepted");
    new.write_all(b"ab").await.expect("written");
    expect(&mut new, &[!b'a', b'b']).await;
}

#[tokio::test]
async fn one_connection_is_frozen_reset_or_closed_and_the_others_go_on() {
    let proxy = proxy().await;
    let mut streams = [
        client(&proxy).await,
        client(&proxy).await,
        client(&proxy).await,
    ];
    let links = proxy.connections();
    assert_eq!(links.iter().map(Link::id).collect::<Vec<_>>(), [0, 1, 2]);

    assert!(links[1].set_both(Flow::Freeze));
    streams[1].write_all(b"late").await.expect("written");
    assert!(silent(&mut streams[1]).await);
    echo(&mut streams[0], b"goes on").await;

    assert!(links[0].reset().await);
    assert!(reset(&mut streams[0]).await);
    assert!(links[2].close().await);
    assert!(matches!(end(&mut streams[2]).await, Ok(0)));
    assert!(!links[0].reset().await && !links[2].set(Direction::ToClient, Flow::Pass));
    assert_eq!(proxy.connections().len(), 1);

    // What is set for all is set for it as well.
    proxy.pass().await.expect("passes");
    expect(&mut streams[1], b"late").await;
}

#[tokio::test]
async fn a_trap_for_one_connection_is_not_sprung_by_another() {
    let proxy = proxy().await;
    let mut streams = [amqp(&proxy).await, amqp(&proxy).await];
    proxy.connections()[1].trap(confirm(Harm::LoseThenReset));
    echo(&mut streams[0], &CONFIRM.repeat(3)).await;
    streams[1].write_all(CONFIRM).await.expect("written");
    assert!(reset(&mut streams[1]).await);
}
