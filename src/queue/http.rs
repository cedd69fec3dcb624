//! A responder for `GET /metrics` and `GET /health`: HTTP/1.1, at most eight connections at once, each closed after its answer.
//!
//! A request has at most 8 KiB and two seconds to come in. Until the server is open, both are answered with 503.
//! It is meant for a loopback address; there is no encryption and no password.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::metrics::Metrics;
use crate::error::{Error, Result};

/// Bytes of a request's head at most.
const LONGEST: usize = 8 << 10;
/// How long a request may take to come in, and an answer to go out.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that are answered at once.
const THREADS: usize = 8;

/// Answers until it is dropped.
pub struct Responder {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Responder {
    /// Listens on an address and answers of `metrics`, in threads of its own. `anywhere` allows addresses that other
    /// machines reach.
    ///
    /// # Errors
    /// Where the address is not this machine's alone and need be, or the system refuses it.
    pub fn start(
        address: SocketAddr,
        anywhere: bool,
        metrics: Arc<Metrics>,
        incoming: PathBuf,
    ) -> Result<Responder> {
        if !anywhere && !address.ip().is_loopback() {
            return Err(Error::config(format!(
                "--metrics {address}: other machines can reach this address; take 127.0.0.1, or add --metrics-anywhere"
            )));
        }
        let refused = |e: std::io::Error| Error::config(format!("--metrics {address}: {e}"));
        let listener = TcpListener::bind(address).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new((listener, metrics, incoming, stop.clone()));
        let threads = (0..THREADS).map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let (listener, metrics, incoming, stop) = &*shared;
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match stream {
                        Ok(stream) => drop(answer(stream, metrics, incoming)), // who hangs up gets no answer
                        Err(_) => std::thread::sleep(Duration::from_millis(100)), // out of files, for one
                    }
                }
            })
        });
        Ok(Responder { address, stop, threads: threads.collect() })
    }

    /// Where it listens; the port is the one taken where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        // Each connection wakes one thread; where that fails they end with the process.
        if (0..self.threads.len()).all(|_| TcpStream::connect_timeout(&own, PATIENCE).is_ok()) {
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

fn answer(mut stream: TcpStream, metrics: &Metrics, incoming: &std::path::Path) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let (status, kind, body) = match head(&mut stream)? {
        None => ("400 Bad Request", "text/plain", "not a request\n".to_string()),
        Some(head) => match (head.method.as_str(), head.path.as_str()) {
            ("GET", "/metrics") if !metrics.is_starting() => {
                ("200 OK", "text/plain; version=0.0.4", metrics.text(incoming, SystemTime::now()))
            }
            ("GET", "/metrics" | "/health") if metrics.is_starting() => {
                ("503 Service Unavailable", "text/plain", "starting\n".into())
            }
            // The server lives and tries again; to start it anew would mend nothing.
            ("GET", "/health") => ("200 OK", "text/plain", metrics.health()),
            ("GET", _) => ("404 Not Found", "text/plain", "there are /metrics and /health\n".into()),
            _ => ("405 Method Not Allowed", "text/plain", "GET alone is answered\n".into()),
        },
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}

/// The first line of a request.
struct Head {
    method: String,
    path: String,
}

/// Reads the head of a request; none where it is none, too long or too slow.
fn head(stream: &mut TcpStream) -> std::io::Result<Option<Head>> {
    let (end, mut bytes, mut piece) = (Instant::now() + PATIENCE, vec![], [0; 1024]);
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() >= LONGEST {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return Ok(None),
            Ok(n) => bytes.extend(&piece[..n]),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.lines().next().unwrap_or_default().split(' ').collect();
    Ok(match words[..] {
        [method, path, version] if version.starts_with("HTTP/1.") => {
            let path = path.split('?').next().unwrap_or_default();
            Some(Head { method: method.into(), path: path.into() })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut text = vec![];
        let _ = stream.read_to_end(&mut text); // it may be cut off where not all was read
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn metrics_and_health_are_answered_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::starting());
        metrics.numbers().version = 7;
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let responder = Responder::start(local, false, metrics.clone(), folder.path().into()).unwrap();
        let at = responder.address();
        for path in ["metrics", "health"] {
            let page = asked(at, format!("GET /{path} HTTP/1.1\r\n\r\n").as_bytes());
            assert!(page.contains("503 ") && page.ends_with("starting\n"), "{page}");
        }
        metrics.numbers().starting = false;
        let begun = Instant::now();
        let idle: Vec<TcpStream> = (1..THREADS).map(|_| TcpStream::connect(at).unwrap()).collect();
        let page = asked(at, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("\nscrubjay_version 7\n"), "{page}");
        assert!(begun.elapsed() < PATIENCE, "idle connections hold others up");
        drop(idle);
        let page = asked(at, b"GET /health HTTP/1.0\r\n\r\n");
        assert!(page.contains("200 OK") && page.ends_with("\nok\n"), "{page}");
        metrics.numbers().error = Some("the disk is full".into());
        let page = asked(at, b"GET /health HTTP/1.1\r\n\r\n");
        assert!(page.contains("200 OK") && page.ends_with("\nretrying: the disk is full\n"), "{page}");
        for (request, status) in [
            (&b"GET /other HTTP/1.1\r\n\r\n"[..], "404 "),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 "),
            (b"hello\r\n\r\n", "400 "),
            (b"GET /metrics HTTP/1.1\r\n", "400 "),
            (b"", "400 "),
        ] {
            let page = asked(at, request);
            assert!(page.starts_with(&format!("HTTP/1.1 {status}")), "{page}");
        }
        asked(at, &[b'x'; 3 * LONGEST]);
        assert!(asked(at, b"GET /health HTTP/1.1\r\n\r\n").contains("200 OK")); // it still answers
        drop(responder);
        assert!(TcpStream::connect(at).is_err());
    }

    #[test]
    fn an_address_that_others_reach_is_refused_unless_it_is_allowed() {
        let open: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let start = |anywhere| Responder::start(open, anywhere, Arc::default(), PathBuf::new());
        let error = start(false).err().unwrap().to_string();
        assert!(error.contains("--metrics-anywhere"), "{error}");
        assert!(start(true).is_ok());
    }
}
