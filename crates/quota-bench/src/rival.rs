//! Servers that others made, for comparison: how they are started and called.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::Failure;
use crate::process::Server;

/// A server that others made.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Rival {
    /// `cargo install throttlecrab-server`: one flat limit per key, in memory.
    Throttlecrab,
}

const THROTTLECRAB: &str = "throttlecrab-server";
/// A limit that nothing reaches.
const AMPLE: i32 = 1_000_000_000;

#[derive(Clone, PartialEq, prost::Message)]
struct ThrottleRequest {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(int32, tag = "2")]
    max_burst: i32,
    #[prost(int32, tag = "3")]
    count_per_period: i32,
    #[prost(int32, tag = "4")]
    period: i32,
    #[prost(int32, tag = "5")]
    quantity: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ThrottleResponse {
    #[prost(bool, tag = "1")]
    allowed: bool,
    #[prost(int32, tag = "2")]
    limit: i32,
    #[prost(int32, tag = "3")]
    remaining: i32,
}

impl Rival {
    /// The program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throttlecrab => THROTTLECRAB,
        }
    }

    /// Starts it; none where it is not on PATH.
    pub(crate) fn start(self) -> Result<Option<Server>, Failure> {
        let mut asked = Command::new(self.name());
        asked.arg("--version").stdout(Stdio::null());
        if asked.stderr(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let address = free_address()?;
        let mut command = Command::new(self.name());
        command.args(["--grpc", "--grpc-host", "127.0.0.1", "--log-level", "error"]);
        command.args(["--grpc-port", &address.port().to_string()]);
        Server::start_other(command, address).map(Some)
    }
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// One decision, which must be to allow.
pub(crate) async fn throttle(channel: &Channel, key: &str) -> Result<(), Failure> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await?;
    let request = ThrottleRequest {
        key: key.into(),
        max_burst: AMPLE,
        count_per_period: AMPLE,
        period: 1,
        quantity: 1,
    };
    let path = PathAndQuery::from_static("/throttlecrab.RateLimiter/Throttle");
    let codec = ProstCodec::<ThrottleRequest, ThrottleResponse>::default();
    let answer = client.unary(tonic::Request::new(request), path, codec);
    match answer.await?.into_inner().allowed {
        true => Ok(()),
        false => Err("the rival refused".into()),
    }
}
