//! Servers for probes to ask: they are threads of the test that listen inside a
//! pod's network namespace, where nobody but the pod can reach them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A server that is well or not, as the test wants it.
pub struct Server {
    pub well: Arc<AtomicBool>,
    /// The heads of all requests.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Sets whether it is well.
    pub fn be(&self, well: bool) {
        self.well.store(well, Ordering::Relaxed);
    }
}

/// A socket that listens in the network namespace of a process.
pub fn listen(process: i32, port: u16) -> TcpListener {
    let namespace = File::open(format!("/proc/{process}/ns/net")).expect("its namespace");
    std::thread::spawn(move || {
        // Only this thread moves, and it ends when the socket is there.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("setns");
        TcpListener::bind(("127.0.0.1", port)).expect("listen")
    })
    .join()
    .expect("a socket")
}

/// Serves HTTP, with TLS when `secure`: 200 when it is well, 503 else;
/// `/away` leads to another host, `/around` to itself, and `/silent` nowhere.
pub fn http(listener: TcpListener, secure: bool) -> Server {
    let server = Server {
        well: Arc::new(AtomicBool::new(true)),
        requests: Arc::default(),
    };
    let (well, requests) = (Arc::clone(&server.well), Arc::clone(&server.requests));
    let config = secure.then(tls);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (well, requests) = (well.load(Ordering::Relaxed), Arc::clone(&requests));
            let config = config.clone();
            std::thread::spawn(move || match config {
                None => answer(stream, well, &requests),
                Some(config) => {
                    let connection = rustls::ServerConnection::new(config).expect("TLS");
                    answer(
                        rustls::StreamOwned::new(connection, stream),
                        well,
                        &requests,
                    );
                }
            });
        }
    });
    server
}

fn tls() -> Arc<rustls::ServerConfig> {
    let certificate = CertificateDer::from_slice(include_bytes!("tls/certificate.der"));
    let key = PrivatePkcs8KeyDer::from(include_bytes!("tls/key.der").to_vec());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from(key))
        .expect("a certificate");
    Arc::new(config)
}

fn answer(mut stream: impl Read + Write, well: bool, requests: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().expect("requests").push(head);
    let status = match path.as_str() {
        "/away" => "302 Found\r\nLocation: http://elsewhere.example/",
        "/around" => "301 Moved Permanently\r\nLocation: /there",
        "/silent" => return std::thread::sleep(std::time::Duration::from_secs(30)),
        _ if well => "200 OK",
        _ => "503 Service Unavailable",
    };
    // A probe that has seen enough may be gone.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
    let _ = stream.flush();
}

/// Serves gRPC health checks: the service `app` is what the test says, the whole
/// server is well, and others are unknown.
pub fn grpc(listener: TcpListener) -> Server {
    let server = Server {
        well: Arc::new(AtomicBool::new(true)),
        requests: Arc::default(),
    };
    let well = Arc::clone(&server.well);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // One connection after the other is enough for probes.
            let _ = runtime.block_on(check(stream, well.load(Ordering::Relaxed)));
        }
    });
    server
}

async fn check(stream: TcpStream, well: bool) -> Result<(), h2::Error> {
    stream.set_nonblocking(true).expect("nonblocking");
    let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = body.data().await {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        };
        let bytes = tokio::select! {
            bytes = reading => bytes,
            _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return Ok(()),
        };
        let service = String::from_utf8_lossy(bytes.get(7..).unwrap_or_default()).into_owned();
        let head = |status: Option<&str>| {
            let mut response = http::Response::builder().header("content-type", "application/grpc");
            if let Some(status) = status {
                response = response.header("grpc-status", status);
            }
            response.body(()).expect("a response")
        };
        let status = match (path.as_str(), service.as_str()) {
            ("/grpc.health.v1.Health/Check", "") => 1,
            ("/grpc.health.v1.Health/Check", "app") => {
                if well {
                    1
                } else {
                    2
                }
            }
            ("/grpc.health.v1.Health/Check", _) => {
                respond.send_response(head(Some("5")), true)?;
                continue;
            }
            _ => {
                respond.send_response(head(Some("12")), true)?;
                continue;
            }
        };
        let mut send = respond.send_response(head(None), false)?;
        send.send_data(
            bytes::Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]),
            false,
        )?;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        send.send_trailers(trailers)?;
    }
    Ok(())
}
