//! Tunnels: none is torn at birth, and each can be closed from outside, however stuck its peers are.

use std::io;

use super::*;

const UPGRADES: usize = 2000;

/// Upgrades and takes the backend's greeting, which it sends together with its 101.
pub(super) async fn open(stage: &Stage, path: &str) -> io::Result<TcpStream> {
    let mut client = stage.connect().await;
    client.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let head = read_head(&mut client).await?;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut greeting = [0; 5];
    client.read_exact(&mut greeting).await?;
    assert_eq!(&greeting, b"hello");
    Ok(client)
}

pub(super) async fn echo_once(tunnel: &mut TcpStream) -> io::Result<()> {
    tunnel.write_all(b"ping").await?;
    let mut back = [0; 4];
    tunnel.read_exact(&mut back).await?;
    assert_eq!(&back, b"ping");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_thousand_tunnels_none_is_torn_at_birth() {
    let stage = Arc::new(Stage::new().await);
    let torn = Arc::new(AtomicUsize::new(0));
    let clients = (0..16).map(|_| {
        let (stage, torn) = (stage.clone(), torn.clone());
        tokio::spawn(async move {
            for _ in 0..UPGRADES / 16 {
                let whole = async {
                    let mut tunnel = open(&stage, "/").await?;
                    echo_once(&mut tunnel).await
                };
                match tokio::time::timeout(PATIENCE, whole).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => {
                        torn.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(torn.load(Ordering::SeqCst), 0, "of {UPGRADES}");
    assert_eq!(stage.tunnels.lock().unwrap().len(), UPGRADES);
    let gone = || stage.exchanges.load(Ordering::SeqCst) == 0;
    until("every exchange has ended", gone).await;
}

/// Opens a tunnel, lets `stick` do its worst, closes it from outside, and expects every part of it to end.
async fn check<F>(path: &str, stick: impl FnOnce(TcpStream) -> F)
where
    F: Future<Output = TcpStream>,
{
    let stage = Stage::new().await;
    let tunnel = open(&stage, path).await.unwrap();
    let mut client = stick(tunnel).await;
    assert_eq!(stage.exchanges.load(Ordering::SeqCst), 1);
    let handle = stage.tunnels.lock().unwrap()[0].clone();
    handle.close();
    let gone = || stage.exchanges.load(Ordering::SeqCst) == 0;
    until("the exchange has ended", gone).await;
    until("the connection is counted out", || stage.stop.connections() == 0).await;
    // The client sees the end, after whatever it had not read yet.
    drop(read_to_end(&mut client).await);
    handle.close(); // once more is harmless
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_tunnel_is_closed_from_outside() {
    check("/", async |mut tunnel| {
        echo_once(&mut tunnel).await.unwrap();
        tunnel
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_whose_client_does_not_read_is_closed_from_outside() {
    check("/", fill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_whose_backend_does_not_read_is_closed_from_outside() {
    check("/mute", fill).await;
}

/// Writes without reading until nothing moves any more: every buffer on the way is full.
async fn fill(mut tunnel: TcpStream) -> TcpStream {
    let piece = vec![b'x'; 1 << 16];
    let still = Duration::from_millis(300);
    while let Ok(wrote) = tokio::time::timeout(still, tunnel.write(&piece)).await {
        wrote.unwrap();
    }
    tunnel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_refuses_is_reported_like_any_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let connector = Tunnel::new().connector(Some(PATIENCE));
    let error = connector.connect(&address.into()).await.unwrap_err();
    assert_eq!(error.etype(), &pingora_core::ErrorType::ConnectRefused);
}
