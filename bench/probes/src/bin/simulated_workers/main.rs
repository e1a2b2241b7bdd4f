//! Many workers that follow the protocol and compute nothing, for `bench/control_plane.py`.
//!
//! `simulated_workers ADDRESS WORKERS`: connects each over a TCP connection of its own, as real workers do, joins, stands
//! by, is ready at once in every generation and sends heartbeats as often as it is told. Prints one JSON object a line.
//! Every line `break` on standard input breaks one worker's connection; answered once every other worker has heard that
//! its generation is over and has been sent into the next. Ends with standard input.

#![allow(clippy::print_stdout, reason = "its answers")]

mod worker;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use worker::{Heard, What};

/// Connections that are being opened at a time: a listener's queue is short, and what does not fit is tried again after a
/// second.
const CONNECTING: usize = 64;
/// Open files beside the connections.
const OTHER_FILES: u64 = 64;
/// Long enough that only a failure reaches it.
const PATIENCE: Duration = Duration::from_secs(180);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, workers] = arguments.as_slice() else {
        bail!("usage: simulated_workers ADDRESS WORKERS");
    };
    let workers: usize = workers.parse().context("WORKERS is a number")?;
    let connections = workers.min(most_connections());
    // As many threads as the coordinator has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(simulate(address, workers, connections))
}

/// Raises the soft limit on open files to the hard one; how many connections that allows.
fn most_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If that is refused, opening a connection says so.
    let _ = setrlimit(Resource::Nofile, limit);
    let files = limit.maximum.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX)
}

async fn simulate(address: &str, workers: usize, connections: usize) -> Result<()> {
    let began = Instant::now();
    let mut channels = connect(address, connections).await?;
    let connected = began.elapsed();

    let (tell, mut heard) = mpsc::unbounded_channel();
    let mut breakers: Vec<Option<oneshot::Sender<()>>> = Vec::with_capacity(workers);
    // Taken from the back, so that a connection belongs to its worker alone if there are enough.
    for index in (0..workers).rev() {
        let channel = if channels.len() > index {
            channels.pop()
        } else {
            channels.get(index % connections).cloned()
        };
        let channel = channel.context("there is at least one connection")?;
        let (breaker, broken) = oneshot::channel();
        breakers.push(Some(breaker));
        tokio::spawn(worker::work(index, workers, channel, tell.clone(), broken));
    }
    breakers.reverse();
    drop(tell);
    drop(channels);

    let mut alive: BTreeSet<usize> = (0..workers).collect();
    let joined = all_heard(&mut heard, &alive, &[What::Welcome, What::Generation]).await?;
    println!(
        "{}",
        json!({
            "event": "joined",
            "workers": workers,
            "connections": connections,
            "connected_seconds": connected.as_secs_f64(),
            "welcomed_seconds": joined[0].duration_since(began).as_secs_f64(),
            "generation_seconds": joined[1].duration_since(began).as_secs_f64(),
        })
    );

    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        if command != "break" {
            bail!("{command:?} is no command: say break");
        }
        // The middle rank: the first and the last could be special.
        let victim = alive.iter().nth(alive.len() / 2).copied();
        let victim = victim.context("no worker is left to break")?;
        alive.remove(&victim);
        // What was said before is of no interest, unless somebody was lost.
        while let Ok(told) = heard.try_recv() {
            told.lost()?;
        }
        let broke = Instant::now();
        if let Some(breaker) = breakers.get_mut(victim).and_then(Option::take) {
            let _ = breaker.send(());
        }
        let told = all_heard(&mut heard, &alive, &[What::Regroup, What::Generation]).await?;
        println!(
            "{}",
            json!({
                "event": "changed",
                "others": alive.len(),
                "regroup_seconds": told[0].duration_since(broke).as_secs_f64(),
                "generation_seconds": told[1].duration_since(broke).as_secs_f64(),
            })
        );
    }
    Ok(())
}

/// Opens so many connections, a few at a time.
async fn connect(address: &str, connections: usize) -> Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true);
    let mut channels = Vec::with_capacity(connections);
    let mut under_way = JoinSet::new();
    for _ in 0..connections {
        if under_way.len() == CONNECTING
            && let Some(channel) = under_way.join_next().await
        {
            channels.push(channel??);
        }
        let endpoint = endpoint.clone();
        under_way.spawn(async move { endpoint.connect().await });
    }
    while let Some(channel) = under_way.join_next().await {
        channels.push(channel??);
    }
    Ok(channels)
}

/// Waits until all of `workers` have heard each of `wanted`; when the last of them heard it.
async fn all_heard(
    heard: &mut mpsc::UnboundedReceiver<Heard>,
    workers: &BTreeSet<usize>,
    wanted: &[What],
) -> Result<Vec<Instant>> {
    let mut missing: Vec<BTreeSet<usize>> = vec![workers.clone(); wanted.len()];
    let mut last = vec![Instant::now(); wanted.len()];
    let waiting = async {
        while missing.iter().any(|missing| !missing.is_empty()) {
            let told = heard.recv().await.context("all workers have ended")?;
            if !workers.contains(&told.worker) {
                continue;
            }
            told.lost()?;
            let Some(place) = wanted.iter().position(|what| *what == told.what) else {
                continue;
            };
            missing[place].remove(&told.worker);
            last[place] = last[place].max(told.at);
        }
        Ok::<_, anyhow::Error>(())
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(result) => result?,
        Err(_) => bail!(
            "after {PATIENCE:?} {:?} was not heard by so many: {:?}",
            wanted,
            missing.iter().map(BTreeSet::len).collect::<Vec<_>>()
        ),
    }
    Ok(last)
}
