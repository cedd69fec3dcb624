//! How ranks that are processes find one another over TCP: rank 0 listens where all know it, every other rank listens on a port of its
//! own and tells rank 0, which tells all once all have come; then each connects to those before it.
//!
//! Nothing is encrypted, and whoever reaches the ports may come: as for MPI and NCCL, the network between the ranks is trusted. What
//! is not a rank of the same run is sent away.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::shared::{failure, read, text};
use crate::error::Result;

/// Where ranks meet.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// This rank, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// The machine of rank 0.
    pub host: String,
    /// The port on which it listens.
    pub port: u16,
    /// What all ranks of one run call it.
    pub job: String,
    /// How long they wait for one another to come.
    pub coming: Duration,
    /// How long they wait for one another in an exchange.
    pub within: Duration,
}

/// What a rank says when it comes: a mark, the run, its number, how many there are, and the port on which it listens.
type Hello = [u64; 5];

/// The variable of the seconds that a rank waits for others.
pub(super) const TIMEOUT: &str = "SCRUBJAY_TIMEOUT";
const MARK: u64 = u64::from_le_bytes(*b"scrubjay");
/// How often is looked whether somebody has come.
const PAUSE: Duration = Duration::from_millis(5);
/// How long somebody who has come may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);

impl Meeting {
    /// Connections to all other ranks, none to this one; rank 0 listens on `listener` where one is given.
    ///
    /// # Errors
    /// Where rank 0 cannot listen or cannot be reached, or a rank does not come in time; where two are the same rank or they do not
    /// agree on how many there are.
    pub(super) fn meet(&self, listener: Option<TcpListener>) -> Result<Vec<Option<TcpStream>>> {
        let until = Instant::now() + self.coming;
        let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let at = format!("{}:{}", self.host, self.port);
        let listener = match (listener, self.rank) {
            (Some(listener), _) => listener,
            (None, 0) => TcpListener::bind(everywhere(self.port)).map_err(|e| {
                failure(
                    "ranks",
                    format!(
                        "rank 0 cannot listen on port {}: {e}; SCRUBJAY_MASTER_PORT sets another",
                        self.port
                    ),
                )
            })?,
            (None, _) => {
                TcpListener::bind(everywhere(0)).map_err(|e| failure("ranks", format!("no port: {e}")))?
            }
        };
        let mut all: Vec<Option<TcpStream>> = (0..self.size).map(|_| None).collect();
        if self.rank == 0 {
            let ports = self.accept(&listener, &mut all, until)?;
            let address = |(stream, port): (&Option<TcpStream>, &u16)| {
                let found = stream.as_ref().and_then(|stream| stream.peer_addr().ok());
                found.map(|address| SocketAddr::new(address.ip(), *port).to_string())
            };
            let table = text(&all.iter().zip(&ports).map(address).collect::<Vec<_>>())?;
            for (rank, stream) in all.iter().enumerate() {
                let Some(mut stream) = stream.as_ref() else { continue };
                let sent = stream
                    .write_all(&(table.len() as u64).to_le_bytes())
                    .and_then(|()| stream.write_all(&table));
                sent.map_err(|e| failure("ranks", format!("rank {rank} has gone: {e}")))?;
            }
            return self.timed(all);
        }
        let port = listener.local_addr().map_or(0, |address| address.port());
        let master = self.connect(&at, 0, port, until)?;
        let table: Vec<Option<SocketAddr>> = self.table(&master, until)?;
        let of_master =
            master.peer_addr().map_err(|e| failure("ranks", format!("rank 0 has gone: {e}")))?.ip();
        all[0] = Some(master);
        for rank in 1..self.rank {
            let Some(mut address) = table.get(rank).copied().flatten() else { continue };
            if address.ip().is_loopback() {
                address.set_ip(of_master); // it is on the machine of rank 0, which sees it so
            }
            all[rank] = Some(self.connect(&address.to_string(), rank, port, until)?);
        }
        self.accept(&listener, &mut all, until)?;
        self.timed(all)
    }

    /// A number of the run, by which those of another are known.
    fn run(&self) -> u64 {
        let hash = Sha256::digest(format!("{}\n{}\n{}", env!("CARGO_PKG_VERSION"), self.job, self.port));
        hash.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// Takes in all ranks behind this one; the ports on which they listen.
    fn accept(
        &self,
        listener: &TcpListener,
        all: &mut [Option<TcpStream>],
        until: Instant,
    ) -> Result<Vec<u16>> {
        let failed = |e: std::io::Error| failure("ranks", format!("listening for other ranks: {e}"));
        listener.set_nonblocking(true).map_err(failed)?;
        let mut ports = vec![0; self.size];
        loop {
            let missing: Vec<String> = (self.rank + 1..self.size)
                .filter(|&rank| all[rank].is_none())
                .map(|rank| rank.to_string())
                .collect();
            if missing.is_empty() {
                return Ok(ports);
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let reason = format!(
                        "rank {} waited {} s for {} of {} ranks, which have not come: {} ({TIMEOUT} sets the seconds)",
                        self.rank,
                        self.coming.as_secs_f64(),
                        missing.len(),
                        self.size,
                        missing.join(", ")
                    );
                    return Err(failure("ranks", reason));
                }
                Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::ConnectionAborted => {
                    continue;
                }
                Err(e) => return Err(failed(e)),
            };
            let Some([_, _, rank, size, port]) = self.hello_of(&stream) else { continue }; // nobody of this run
            if size as usize != self.size {
                let reason = format!(
                    "rank {rank} says that there are {size} ranks, rank {} that there are {}",
                    self.rank, self.size
                );
                return Err(failure("ranks", reason));
            }
            let rank = rank as usize;
            match all.get_mut(rank).filter(|_| rank > self.rank) {
                Some(place @ None) => {
                    *place = Some(stream);
                    ports[rank] = port as u16;
                }
                _ => return Err(failure("ranks", format!("two processes say that they are rank {rank}"))),
            }
        }
    }

    /// What somebody who has come says, if that is a rank of this run.
    fn hello_of(&self, mut stream: &TcpStream) -> Option<Hello> {
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut hello: Hello = [0; 5];
        stream.read_exact(bytemuck::bytes_of_mut(&mut hello)).ok()?;
        (hello[..2] == [MARK, self.run()]).then_some(hello)
    }

    /// A connection to a rank that listens there, now or soon.
    fn connect(&self, at: &str, rank: usize, port: u16, until: Instant) -> Result<TcpStream> {
        let unreachable = |e: &dyn std::fmt::Display| {
            let reason = format!(
                "rank {rank} cannot be reached at {at}, for {} s: {e}; MASTER_ADDR and MASTER_PORT say where rank 0 is, {TIMEOUT} how \
                 many seconds to try",
                self.coming.as_secs_f64()
            );
            failure("ranks", reason)
        };
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
            let found = at.to_socket_addrs().and_then(|found| {
                let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
                for address in found {
                    match TcpStream::connect_timeout(&address, left) {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            });
            match found {
                Ok(mut stream) => {
                    let hello: Hello =
                        [MARK, self.run(), self.rank as u64, self.size as u64, u64::from(port)];
                    stream.write_all(bytemuck::bytes_of(&hello)).map_err(|e| unreachable(&e))?;
                    return Ok(stream);
                }
                Err(e) if Instant::now() >= until => return Err(unreachable(&e)),
                Err(_) => std::thread::sleep(PAUSE * 4),
            }
        }
    }

    /// Where all ranks listen, from rank 0.
    fn table(&self, mut master: &TcpStream, until: Instant) -> Result<Vec<Option<SocketAddr>>> {
        let failed = |e: std::io::Error| {
            let reason = match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
                    "rank 0 did not have all {} ranks in {} s ({TIMEOUT} sets the seconds)",
                    self.size,
                    self.coming.as_secs_f64()
                ),
                _ => format!(
                    "rank 0 has gone, or what listens at {}:{} is of another run or program: {e}",
                    self.host, self.port
                ),
            };
            failure("ranks", reason)
        };
        // Rank 0 says itself who is missing, a little before this one is tired.
        let left = until.saturating_duration_since(Instant::now()) + PATIENCE.min(self.coming);
        master.set_read_timeout(Some(left)).map_err(failed)?;
        let mut len = [0; 8];
        master.read_exact(&mut len).map_err(failed)?;
        let mut table = vec![];
        master.take(u64::from_le_bytes(len)).read_to_end(&mut table).map_err(failed)?;
        let table: Vec<Option<String>> = read(&table)?;
        Ok(table.into_iter().map(|address| address.and_then(|address| address.parse().ok())).collect())
    }

    /// The connections as exchanges use them.
    fn timed(&self, all: Vec<Option<TcpStream>>) -> Result<Vec<Option<TcpStream>>> {
        for stream in all.iter().flatten() {
            let set = stream
                .set_nodelay(true)
                .and_then(|()| stream.set_read_timeout(Some(self.within)))
                .and_then(|()| stream.set_write_timeout(Some(self.within)));
            set.map_err(|e| failure("ranks", format!("a connection: {e}")))?;
        }
        Ok(all)
    }
}
