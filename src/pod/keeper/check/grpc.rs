//! The gRPC health checking protocol, as far as a probe needs it: one call of
//! `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};

use super::{Finding, Reach, connect};

/// The longest answer, in bytes: it has one number.
const LONGEST: usize = 4096;

/// The longest head and trailers, in bytes.
const LONGEST_HEAD: u32 = 64 << 10;

/// `grpc-status` numbers.
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

/// The states that a server can tell, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// Asks the server at `port` of the pod how `service` is; the whole server when
/// that is empty.
pub(super) async fn check(reach: &Reach, port: u16, service: &str, limit: Duration) -> Finding {
    let seconds = limit.as_secs();
    let authority = connect::authority(&reach.host, port);
    let deadline = tokio::time::Instant::now() + limit;
    let connected = connect::connect(reach, &reach.host, port);
    let stream = match tokio::time::timeout_at(deadline, connected).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => {
            return Finding::Unhealthy(format!(
                "timeout: failed to connect service {authority:?} within {seconds}s: context \
                 deadline exceeded"
            ));
        }
    };
    match tokio::time::timeout_at(deadline, call(stream, &authority, service)).await {
        Ok(Ok(reply)) => reply.finding(),
        Ok(Err(error)) => Finding::Unhealthy(format!("error: health rpc probe failed: {error}")),
        Err(_) => Finding::Unhealthy(format!(
            "timeout: health rpc did not complete within {seconds}s"
        )),
    }
}

/// What came back.
struct Reply {
    status: String,
    message: String,
    body: BytesMut,
}

impl Reply {
    fn finding(&self) -> Finding {
        let (status, message) = (&self.status, &self.message);
        Finding::Unhealthy(match status.as_str() {
            OK => match state(&self.body) {
                Some(SERVING) => return Finding::Healthy,
                Some(number) => {
                    let name = usize::try_from(number)
                        .ok()
                        .and_then(|number| STATES.get(number).copied());
                    let shown = name.map_or_else(|| number.to_string(), str::to_owned);
                    format!("service unhealthy (responded with {shown:?})")
                }
                None => "error: health rpc probe failed: malformed response".to_owned(),
            },
            UNIMPLEMENTED => format!(
                "error: this server does not implement the grpc health protocol \
                 (grpc.health.v1.Health): {message}"
            ),
            _ => {
                format!(
                    "error: health rpc probe failed: rpc error: code = {status} desc = {message}"
                )
            }
        })
    }
}

async fn call(
    stream: tokio::net::TcpStream,
    authority: &str,
    service: &str,
) -> Result<Reply, h2::Error> {
    let (client, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(LONGEST_HEAD)
        .handshake(stream)
        .await?;
    let exchange = exchange(client, authority, service);
    tokio::pin!(connection, exchange);
    tokio::select! {
        reply = &mut exchange => reply,
        ended = &mut connection => match ended {
            // What had arrived before the server closed is still to be read.
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    }
}

async fn exchange(
    client: h2::client::SendRequest<Bytes>,
    authority: &str,
    service: &str,
) -> Result<Reply, h2::Error> {
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(());
    let Ok(request) = request else {
        return Err(h2::Reason::INTERNAL_ERROR.into());
    };
    let (response, mut body) = client.ready().await?.send_request(request, false)?;
    body.send_data(message(service), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if bytes.len() + chunk.len() > LONGEST {
            return Err(h2::Reason::ENHANCE_YOUR_CALM.into());
        }
        bytes.put(chunk);
    }
    // A call that fails at once has its status in the head.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    Ok(Reply {
        status: field(&trailers, "grpc-status").unwrap_or_else(|| "2".to_owned()),
        message: field(&trailers, "grpc-message").unwrap_or_default(),
        body: bytes,
    })
}

fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A `HealthCheckRequest` in gRPC's frame: not compressed, its length, and field 1,
/// the name of the service.
fn message(service: &str) -> Bytes {
    let mut encoded = BytesMut::new();
    if !service.is_empty() {
        encoded.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            encoded.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        encoded.put_u8(length as u8);
        encoded.put(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(encoded.len() as u32);
    framed.put(encoded);
    framed.freeze()
}

/// The state in a framed `HealthCheckResponse`: field 1, a number, which is 0 when
/// it is left out. `None` when there is no such message.
fn state(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
    if head[0] != 0 || message.len() != length {
        return None;
    }
    let Some((tag, number)) = message.split_first() else {
        return Some(0);
    };
    if *tag != 0x08 {
        return None;
    }
    let mut value = 0;
    for (place, byte) in number.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_as_grpc_has_them() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_state_is_read_from_the_answer_or_not_at_all() {
        assert_eq!(state(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(state(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(state(&[0, 0, 0, 0, 2, 0x08]), None);
        assert_eq!(state(&[1, 0, 0, 0, 0]), None);
        assert_eq!(state(&[0, 0]), None);
    }
}
