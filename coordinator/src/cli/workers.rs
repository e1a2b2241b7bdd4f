//! `coordinator workers`: who takes part, and where every thread of each is.

use proto::v1::{GetStacksRequest, GetStacksResponse, GetStatusRequest, ThreadStack};
use serde_json::json;

use super::asking::{ANSWER, NEXT, connect};
use super::client::{worker, worker_json};
use super::{Failure, OK, WorkersArgs};
use crate::terminal::answer;

pub(super) async fn workers(args: &WorkersArgs) -> Result<u8, Failure> {
    let (mut client, asked) = connect(&args.run).await?;
    if !args.stacks {
        let request = client.get_status(GetStatusRequest {});
        let status = asked.within(ANSWER, request).await?.into_inner().status;
        for known in status.unwrap_or_default().workers {
            answer(&if args.json {
                worker_json(&known).to_string()
            } else {
                worker(&known)
            });
        }
        return Ok(OK);
    }
    let request = client.get_stacks(GetStacksRequest {});
    let mut stacks = asked.within(ANSWER, request).await?.into_inner();
    while let Some(response) = asked.within(NEXT, stacks.message()).await? {
        answer(&if args.json {
            to_json(&response)
        } else {
            to_text(&response)
        });
    }
    Ok(OK)
}

fn to_text(response: &GetStacksResponse) -> String {
    let mut lines: Vec<String> = response.worker.iter().map(worker).collect();
    if !response.problem.is_empty() {
        lines.push(format!("    no stacks: {}", response.problem));
    }
    lines.extend(response.threads.iter().map(thread));
    lines.join("\n")
}

fn thread(thread: &ThreadStack) -> String {
    let mut lines = vec![format!("    thread {} {:?}", thread.id, thread.name)];
    if !thread.problem.is_empty() {
        lines.push(format!("        no stack: {}", thread.problem));
    }
    lines.extend(thread.frames.iter().map(|frame| format!("        {frame}")));
    lines.join("\n")
}

fn to_json(response: &GetStacksResponse) -> String {
    let threads: Vec<_> = response
        .threads
        .iter()
        .map(|thread| {
            json!({
                "id": thread.id,
                "name": thread.name,
                "frames": thread.frames,
                "problem": (!thread.problem.is_empty()).then_some(&thread.problem),
            })
        })
        .collect();
    json!({
        "worker": response.worker.as_ref().map(worker_json),
        "threads": threads,
        "problem": (!response.problem.is_empty()).then_some(&response.problem),
    })
    .to_string()
}
