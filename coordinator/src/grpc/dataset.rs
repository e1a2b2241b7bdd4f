//! The index of a split, in chunks.

use proto::CHUNK_BYTES;
use proto::v1::{GetDatasetRequest, GetDatasetResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Context;

/// Chunks in flight for one reader.
const IN_FLIGHT: usize = 2;

/// Streams the index that the request names.
pub(super) async fn stream(
    context: &Context,
    request: &GetDatasetRequest,
) -> Result<ReceiverStream<Result<GetDatasetResponse, Status>>, Status> {
    context.check_run(&request.run_id)?;
    let index = context.index(request.split()).await?;
    let (chunks, stream) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        for chunk in index.chunks(CHUNK_BYTES) {
            // An error means that the reader has gone.
            if chunks
                .send(Ok(GetDatasetResponse {
                    chunk: chunk.to_vec(),
                }))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}
