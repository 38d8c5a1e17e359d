//! Reads numbers from `GET /metrics`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Failure;

/// A page of metrics.
pub(crate) struct Page(String);

impl Page {
    /// Asks a server.
    pub(crate) fn get(address: SocketAddr) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        match page.starts_with("HTTP/1.1 200") {
            true => Ok(Self(page)),
            false => Err("GET /metrics was not answered".into()),
        }
    }

    /// The value of a series, by its name with labels.
    pub(crate) fn value(&self, series: &str) -> Result<f64, Failure> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.ok_or_else(|| format!("there is no metric {series}"))?;
        Ok(value.trim().parse()?)
    }

    /// The buckets of a histogram: upper bounds and cumulative counts.
    pub(crate) fn buckets(&self, name: &str) -> Result<Vec<(f64, f64)>, Failure> {
        let begin = format!("{name}_bucket{{le=\"");
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(&begin));
        lines
            .map(|line| {
                let (bound, count) = line.split_once("\"} ").ok_or("a bucket is malformed")?;
                Ok((bound.replace("+Inf", "inf").parse()?, count.parse()?))
            })
            .collect()
    }
}
