//! A key-value server over TCP, and its client as a [`Store`]. One connection a request.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nccl_rs::{Store, StoreError};

type Table = HashMap<String, Vec<u8>>;

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Serves until the process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers one request. A client that was killed meanwhile gets no answer.
fn serve(mut stream: TcpStream, shared: &Shared) {
    let Ok(parts) = receive(&mut stream) else {
        return;
    };
    let text = |at: usize| String::from_utf8(parts[at].clone()).unwrap();
    let mut table = shared.table.lock().unwrap();
    let answer = match text(0).as_str() {
        "set" => {
            table.insert(text(1), parts[2].clone());
            Some(Vec::new())
        }
        "get" => {
            let deadline = Instant::now() + Duration::from_millis(text(2).parse().unwrap());
            loop {
                if let Some(value) = table.get(&text(1)) {
                    break Some(value.clone());
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break None;
                }
                table = shared.changed.wait_timeout(table, left).unwrap().0;
            }
        }
        "add" => {
            let sum = number(table.get(&text(1))) + text(2).parse::<i64>().unwrap();
            table.insert(text(1), sum.to_string().into_bytes());
            Some(sum.to_string().into_bytes())
        }
        "check" => table.contains_key(&text(1)).then(Vec::new),
        "delete" => table.remove(&text(1)).map(|_| Vec::new()),
        "count" => Some(table.len().to_string().into_bytes()),
        other => panic!("no such request: {other}"),
    };
    drop(table);
    shared.changed.notify_all();
    let found: &[u8] = if answer.is_some() {
        b"found"
    } else {
        b"absent"
    };
    let _ = send(&mut stream, &[found, &answer.unwrap_or_default()]);
}

fn number(value: Option<&Vec<u8>>) -> i64 {
    value.map_or(0, |value| String::from_utf8_lossy(value).parse().unwrap())
}

#[derive(Clone)]
pub struct Client {
    server: SocketAddr,
    prefix: String,
}

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            prefix: String::new(),
        }
    }

    pub fn with_prefix(&self, prefix: &str) -> Self {
        Self {
            server: self.server,
            prefix: format!("{}{prefix}/", self.prefix),
        }
    }

    fn ask(
        &self,
        operation: &'static str,
        key: &str,
        extra: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = |source: std::io::Error| StoreError::Failed {
            operation,
            key: key.into(),
            source: Box::new(source),
        };
        let mut stream = TcpStream::connect(self.server).map_err(failed)?;
        let key = format!("{}{key}", self.prefix);
        send(&mut stream, &[operation.as_bytes(), key.as_bytes(), extra]).map_err(failed)?;
        let mut answer = receive(&mut stream).map_err(failed)?;
        Ok((answer[0] == b"found").then(|| answer.remove(1)))
    }
}

impl Store for Client {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.ask("set", key, value).map(drop)
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        self.ask("get", key, timeout.as_millis().to_string().as_bytes())?
            .ok_or_else(|| StoreError::Timeout {
                key: key.into(),
                waited: timeout,
            })
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        let sum = self.ask("add", key, amount.to_string().as_bytes())?;
        Ok(number(sum.as_ref()))
    }

    fn check(&self, keys: &[&str]) -> Result<bool, StoreError> {
        for key in keys {
            if self.ask("check", key, b"")?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), StoreError> {
        keys.iter()
            .try_for_each(|key| self.get(key, timeout).map(drop))
    }

    fn compare_set(&self, key: &str, _: &[u8], _: &[u8]) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Failed {
            operation: "compare_set",
            key: key.into(),
            source: "neither Gloo nor NCCL asks for it".into(),
        })
    }

    fn delete_key(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.ask("delete", key, b"")?.is_some())
    }

    fn num_keys(&self) -> Result<i64, StoreError> {
        Ok(number(self.ask("count", "", b"")?.as_ref()))
    }
}

fn send(stream: &mut TcpStream, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut message = vec![u8::try_from(parts.len()).unwrap()];
    for part in parts {
        message.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        message.extend(*part);
    }
    stream.write_all(&message)
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<Vec<u8>>> {
    let mut count = [0];
    stream.read_exact(&mut count)?;
    (0..count[0])
        .map(|_| {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut part = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut part)?;
            Ok(part)
        })
        .collect()
}
