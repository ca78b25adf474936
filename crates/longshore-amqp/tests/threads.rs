//! A connection given up leaves nothing behind: lapin runs a thread for each.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use longshore_core::ConnectOptions;
use longshore_testing::{brokers, proxy::Proxy};

fn io_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin-io")).count()
}

async fn until(count: usize) {
    let from = Instant::now();
    while io_threads() != count {
        let has = io_threads();
        assert!(
            from.elapsed() < Duration::from_secs(20),
            "{has} threads, not {count}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn threads_end_with_their_connections() {
    let mut options = ConnectOptions::default();
    options.connect_timeout = Duration::from_millis(300);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = silent.local_addr().expect("an address");
    for _ in 0..5 {
        let url = format!("amqp://guest:guest@{address}");
        let refused = longshore_amqp::connect(&url, options.clone()).await;
        assert!(refused.is_err());
    }
    until(0).await;

    let url = brokers::amqp_url().expect("a broker");
    let upstream = url.rsplit('@').next().expect("a host").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    options.connect_timeout = Duration::from_secs(5);
    let transport = longshore_amqp::connect(&proxy.url(&url), options)
        .await
        .expect("connected");
    until(2).await;
    for _ in 0..5 {
        proxy.reset_all().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    until(2).await;
    transport.close(Duration::from_secs(2)).await;
    drop(transport);
    until(0).await;
}
