//! Metrics, asked for as a scraper asks.

use std::io::{Read, Write};

use crate::http2::tcp;

/// An answer of the metrics port.
pub struct Page {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// What follows.
    pub body: String,
}

/// Asks a metrics URL with further header lines, each ended by `\r\n`.
pub fn ask(method: &str, url: &str, headers: &str) -> Page {
    let rest = url.trim_start_matches("http://");
    let (address, path) = rest.split_once('/').unwrap();
    let mut stream = tcp(address);
    let request = format!("{method} /{path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let head = head.to_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .map_or(0, |code| code.parse().unwrap());
    Page {
        status,
        head,
        body: body.to_owned(),
    }
}

/// The page of metrics.
pub fn scrape(url: &str) -> String {
    let page = ask("GET", url, "");
    assert_eq!(page.status, 200, "{}", page.head);
    page.body
}

/// The samples of a metric.
pub fn samples<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    const ENDINGS: [&str; 6] = ["{", " ", "_total", "_sum", "_count", "_bucket"];
    let of_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| ENDINGS.iter().any(|ending| rest.starts_with(ending)))
    };
    let mut found: Vec<&str> = page.lines().filter(of_it).collect();
    found.sort_unstable();
    found
}

/// The value of one sample, such as `quota_usage{entity_id="system"`: the first that begins so.
pub fn value(page: &str, begins: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ')
        .next()
        .map(|number| number.parse().unwrap())
}
