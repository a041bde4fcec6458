//! As much of D-Bus as it takes to ask systemd for something: method calls with few
//! types of arguments, their replies, and signals that arrive meanwhile.
//!
//! Follows <https://dbus.freedesktop.org/doc/dbus-specification.html>: "Message
//! protocol", and "Authentication" with the mechanism EXTERNAL.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// No message that is waited for comes near this many bytes.
const LARGEST: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// The codes of header fields.
mod field {
    pub const PATH: u8 = 1;
    pub const INTERFACE: u8 = 2;
    pub const MEMBER: u8 = 3;
    pub const ERROR_NAME: u8 = 4;
    pub const REPLY_SERIAL: u8 = 5;
    pub const DESTINATION: u8 = 6;
    pub const SIGNATURE: u8 = 8;
}

/// A connection on which no message is lost: those that were not waited for are kept.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

/// A method of an object.
pub(super) struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub name: &'a str,
}

/// A message that came in.
#[derive(Debug, Default)]
pub(super) struct Message {
    kind: u8,
    reply_to: u32,
    /// The name of a signal.
    pub member: String,
    error: String,
    body: Vec<u8>,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the other side says, after the name that it gives the error.
    #[error("{text}")]
    Refused { name: String, text: String },
}

impl Bus {
    /// Connects to the other side's own socket: there is no bus in between.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        // In one piece: systemd does not look at a message that arrives together with
        // the end of this conversation until another one comes.
        let request = format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n");
        stream.write_all(request.as_bytes())?;
        let answer = line(&mut stream)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it answers {answer:?} to the request to be let in"),
            ));
        }
        Ok(Self { stream, serial: 0 })
    }

    /// Calls a method with the arguments in `body`, which are of the types that
    /// `signature` tells, and returns the results. `signal` gets what comes before.
    pub fn call(
        &mut self,
        method: &Method,
        signature: &str,
        body: &Body,
        mut signal: impl FnMut(Message),
    ) -> Result<Message, CallError> {
        self.serial += 1;
        let serial = self.serial;
        let message = call(method, serial, signature, body);
        self.stream.write_all(&message)?;
        loop {
            let message = self.next()?;
            match message.kind {
                METHOD_RETURN | ERROR if message.reply_to != serial => {}
                METHOD_RETURN => return Ok(message),
                ERROR => {
                    let text = message.strings("s").pop().unwrap_or_default();
                    let name = message.error;
                    return Err(CallError::Refused { name, text });
                }
                _ => signal(message),
            }
        }
    }

    /// Waits for the next message.
    pub fn next(&mut self) -> io::Result<Message> {
        let mut fixed = [0u8; 16];
        read(&mut self.stream, &mut fixed)?;
        let mut start = Reader {
            bytes: &fixed,
            at: 4,
        };
        let lengths = [start.u32(), start.u32(), start.u32()];
        let [Some(body), _, Some(fields)] = lengths else {
            return Err(malformed());
        };
        let (body, fields) = (body as usize, fields as usize);
        if fixed[0] != b'l' || body > LARGEST || fields > LARGEST {
            return Err(malformed());
        }
        let padded = fields.next_multiple_of(8);
        let mut rest = vec![0; padded + body];
        read(&mut self.stream, &mut rest)?;
        let mut message = header(&rest[..fields]).ok_or_else(malformed)?;
        message.kind = fixed[1];
        message.body = rest.split_off(padded);
        Ok(message)
    }
}

impl Message {
    /// The strings and object paths of a body of these types, of which others may be
    /// `u` only; fewer when the body is not so.
    pub fn strings(&self, signature: &str) -> Vec<String> {
        let mut body = Reader {
            bytes: &self.body,
            at: 0,
        };
        let mut found = Vec::new();
        for kind in signature.chars() {
            let read = match kind {
                'u' => body.u32().map(drop),
                _ => body.string().map(|text| found.push(text)),
            };
            if read.is_none() {
                break;
            }
        }
        found
    }
}

/// Arguments, one after the other as their types demand.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    pub fn u64(&mut self, number: u64) {
        self.align(8);
        self.0.extend(number.to_le_bytes());
    }

    /// A string, or an object path.
    pub fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// The signature with which a variant begins.
    pub fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array, of elements that `alignment` goes for.
    pub fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let bytes = (self.0.len() - start) as u32;
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Where a structure may begin.
    pub fn structure(&mut self) {
        self.align(8);
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }
}

fn call(method: &Method, serial: u32, signature: &str, body: &Body) -> Vec<u8> {
    let mut message = Body(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(body.0.len() as u32);
    message.u32(serial);
    message.array(8, |fields| {
        for (code, kind, value) in [
            (field::PATH, "o", method.path),
            (field::INTERFACE, "s", method.interface),
            (field::MEMBER, "s", method.name),
            (field::DESTINATION, "s", method.destination),
        ] {
            fields.structure();
            fields.byte(code);
            fields.signature(kind);
            fields.string(value);
        }
        fields.structure();
        fields.byte(field::SIGNATURE);
        fields.signature("g");
        fields.signature(signature);
    });
    message.structure();
    message.0.extend(&body.0);
    message.0
}

/// The fields that are of interest here.
fn header(bytes: &[u8]) -> Option<Message> {
    let mut fields = Reader { bytes, at: 0 };
    let mut message = Message::default();
    while fields.at < bytes.len() {
        fields.align(8);
        let code = fields.byte()?;
        let kind = fields.signature()?;
        let mut text = String::new();
        let mut number = 0;
        match kind.as_str() {
            "s" | "o" => text = fields.string()?,
            "g" => text = fields.signature()?,
            "u" => number = fields.u32()?,
            // No field has another type.
            _ => return None,
        }
        match code {
            field::MEMBER => message.member = text,
            field::ERROR_NAME => message.error = text,
            field::REPLY_SERIAL => message.reply_to = number,
            _ => {}
        }
    }
    Some(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let taken = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(taken))
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok();
        self.take(1)?;
        text
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }
}

/// Reads a line of the conversation before the first message, and no byte more.
fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") && text.len() < 512 {
        let mut byte = [0];
        read(stream, &mut byte)?;
        text.extend(byte);
    }
    Ok(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
}

fn read(stream: &mut UnixStream, bytes: &mut [u8]) -> io::Result<()> {
    stream
        .read_exact(bytes)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer in {PATIENCE:?}"),
            ),
            _ => error,
        })
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it sent what is no message of D-Bus",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let mut body = Body::default();
        body.string("a.scope");
        body.array(8, |list| {
            list.structure();
            list.string("N");
            list.signature("t");
            list.u64(7);
        });
        let text: Vec<u8> = [
            b"\x07\0\0\0a.scope\0".as_slice(),
            b"\x18\0\0\0",
            b"\x01\0\0\0N\0\x01t\0\0\0\0\0\0\0\0",
            b"\x07\0\0\0\0\0\0\0",
        ]
        .concat();
        assert_eq!(body.0, text);

        let method = Method {
            destination: "d",
            path: "/p",
            interface: "i",
            name: "M",
        };
        let message = call(&method, 3, "sa(sv)", &body);
        let fields = u32::from_le_bytes(message[12..16].try_into().expect("four bytes"));
        assert_eq!(message[..4], [b'l', 1, 0, 1]);
        assert_eq!(message[4..8], (body.0.len() as u32).to_le_bytes());
        assert_eq!(
            header(&message[16..16 + fields as usize])
                .expect("fields")
                .member,
            "M"
        );
        assert!(message.ends_with(&body.0));
        assert_eq!((message.len() - body.0.len()) % 8, 0);
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        assert!(header(b"\x03\x01s\0\xff\0\0\0M").is_none());
        let message = Message {
            body: b"\x01\0\0\0\x02\0\0\0/j\0\0\xff\xff\0\0x".to_vec(),
            ..Message::default()
        };
        assert_eq!(message.strings("uos"), ["/j"]);
    }
}
