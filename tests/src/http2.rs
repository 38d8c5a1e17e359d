//! HTTP/2 written by hand, for callers that misbehave: half a call, answers that are never read, frames that
//! are none.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use prost::Message;

/// What a connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kind of a frame with a part of a message.
pub const DATA: u8 = 0;
/// Kind of a frame with the headers of a call.
pub const HEADERS: u8 = 1;
/// Kind of a frame that ends a call early.
pub const RST_STREAM: u8 = 3;
/// Kind of a frame with settings.
pub const SETTINGS: u8 = 4;
/// Kind of a frame that ends a connection.
pub const GOAWAY: u8 = 7;
/// Kind of a frame with more headers.
pub const CONTINUATION: u8 = 9;
/// Flag of the last frame of one side of a call.
pub const END_STREAM: u8 = 1;
/// Flag of the last frame of headers.
pub const END_HEADERS: u8 = 4;

/// How long a read or a write may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The call that it belongs to; 0 for the connection.
    pub call: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A connection without manners.
pub struct Raw {
    stream: TcpStream,
    next: u32,
}

/// A plain connection to a server.
pub fn tcp(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, call: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let mut bytes = size.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&call.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Headers of a gRPC call, none of them indexed.
pub fn headers(path: &str) -> Vec<u8> {
    // :method POST and :scheme http have numbers of their own.
    let mut bytes = vec![0x83, 0x86];
    let fields = [
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields {
        header(&mut bytes, name, value);
    }
    bytes
}

/// One more header.
pub fn header(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.push(0);
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(size) if size < 127 => bytes.push(size),
            _ => {
                bytes.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// A gRPC message with its prefix.
pub fn message(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

impl Raw {
    /// Connects and says what a connection begins with.
    pub fn connect(endpoint: &str) -> Self {
        Self::begin(tcp(endpoint)).unwrap()
    }

    /// The same where the server may refuse it.
    pub fn try_connect(endpoint: &str) -> io::Result<Self> {
        Self::begin(tcp(endpoint))
    }

    /// Connects with room for hardly anything that comes back.
    pub async fn narrow(endpoint: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = endpoint.trim_start_matches("http://").parse().unwrap();
        let stream = socket.connect(address).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::begin(stream).unwrap()
    }

    fn begin(mut stream: TcpStream) -> io::Result<Self> {
        stream.write_all(PREFACE)?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        Ok(Self { stream, next: 1 })
    }

    /// Gives up writing soon where the other side does not read.
    pub fn impatient(&self) {
        let soon = Some(Duration::from_millis(100));
        self.stream.set_write_timeout(soon).unwrap();
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a whole call; answers its number.
    pub fn call(&mut self, path: &str, request: &impl Message) -> io::Result<u32> {
        let call = self.number();
        let mut bytes = frame(HEADERS, END_HEADERS, call, &headers(path));
        bytes.extend(frame(DATA, END_STREAM, call, &message(request)));
        self.send(&bytes)?;
        Ok(call)
    }

    /// The number of the next call.
    pub fn number(&mut self) -> u32 {
        let number = self.next;
        self.next += 2;
        number
    }

    /// The next frame; none where the connection ended.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        if let Err(error) = self.stream.read_exact(&mut head) {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Ok(None),
                _ => Err(error),
            };
        }
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(size).unwrap()];
        self.stream.read_exact(&mut payload)?;
        Ok(Some(Frame {
            kind: head[3],
            flags: head[4],
            call: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        }))
    }

    /// Reads until a call, or the connection, is over; answers the kind of the frame that said so, or none
    /// where the connection was closed without one.
    pub fn end(&mut self, call: u32) -> Option<u8> {
        while let Some(frame) = self.read().expect("an answer or the end of the connection") {
            let ends = frame.call == call && frame.flags & END_STREAM != 0;
            let headers = frame.kind == HEADERS && ends;
            let reset = frame.kind == RST_STREAM && frame.call == call;
            if headers || reset || frame.kind == GOAWAY {
                return Some(frame.kind);
            }
        }
        None
    }

    /// Vanishes with a RST.
    pub fn reset(self) {
        self.stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(self.stream).unwrap();
        stream.set_zero_linger().unwrap();
    }
}
