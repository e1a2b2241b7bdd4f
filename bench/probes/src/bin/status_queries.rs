//! Asks a coordinator for its status again and again, for `bench/control_plane.py`.
//!
//! `status_queries ADDRESS QUERIES MILLISECONDS`: so many, so long after each other. Prints one JSON object: how long each
//! took in seconds, the largest answer in bytes, and the last phase.

#![allow(clippy::print_stdout, reason = "its answer")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use prost::Message as _;
use proto::v1::GetStatusRequest;
use proto::v1::run_service_client::RunServiceClient;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, queries, pause] = arguments.as_slice() else {
        bail!("usage: status_queries ADDRESS QUERIES MILLISECONDS");
    };
    let (queries, pause): (u32, u64) = (queries.parse()?, pause.parse()?);
    let mut client = RunServiceClient::connect(address.clone()).await?;
    let mut every = tokio::time::interval(Duration::from_millis(pause.max(1)));
    let (mut seconds, mut bytes, mut phase) = (Vec::new(), 0, String::new());
    for _ in 0..queries {
        every.tick().await;
        let began = Instant::now();
        let answer = client.get_status(GetStatusRequest {}).await?.into_inner();
        seconds.push(began.elapsed().as_secs_f64());
        bytes = bytes.max(answer.encoded_len());
        let status = answer.status.context("an answer has a status")?;
        phase = status.phase().as_str_name().to_owned();
    }
    println!(
        "{}",
        json!({ "seconds": seconds, "largest_bytes": bytes, "phase": phase })
    );
    Ok(())
}
