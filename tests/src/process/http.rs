//! One plain HTTP request: enough to ask a server for its health.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// The status and body of a GET.
///
/// # Errors
/// When nobody answers within two seconds, or not in HTTP.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // A reply to HTTP/1.0 is not cut into chunks, however long it is.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply);
    let (head, body) =
        reply.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("a reply without a head"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.ok_or_else(|| anyhow::anyhow!("a reply without a status"))?, body.to_owned()))
}

/// True once the server says on `/health` that it can serve.
pub fn is_healthy(address: SocketAddr) -> bool {
    get(address, "/health").is_ok_and(|(status, body)| status == 200 && body.contains("\"true\""))
}
