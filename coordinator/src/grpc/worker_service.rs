//! `WorkerService`: each call in the file of its own.

use std::sync::Arc;

use proto::v1::worker_service_server::WorkerService;
use proto::v1::{
    GetCheckpointRequest, GetCheckpointResponse, GetDatasetRequest, GetDatasetResponse,
    PutCheckpointRequest, PutCheckpointResponse, SessionRequest, SessionResponse,
    SubmitScoresRequest, SubmitScoresResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, checkpoint_rpc, dataset, scores, session};

/// See the module's description.
pub(crate) struct Worker(pub(crate) Arc<Context>);

#[tonic::async_trait]
impl WorkerService for Worker {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;
    type GetDatasetStream = ReceiverStream<Result<GetDatasetResponse, Status>>;
    type GetCheckpointStream = ReceiverStream<Result<GetCheckpointResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(session::open(
            Arc::clone(&self.0),
            request.into_inner(),
        )))
    }

    async fn get_dataset(
        &self,
        request: Request<GetDatasetRequest>,
    ) -> Result<Response<Self::GetDatasetStream>, Status> {
        Ok(Response::new(
            dataset::stream(&self.0, request.get_ref()).await?,
        ))
    }

    async fn submit_scores(
        &self,
        request: Request<Streaming<SubmitScoresRequest>>,
    ) -> Result<Response<SubmitScoresResponse>, Status> {
        Ok(Response::new(
            scores::submit(&self.0, request.into_inner()).await?,
        ))
    }

    async fn put_checkpoint(
        &self,
        request: Request<Streaming<PutCheckpointRequest>>,
    ) -> Result<Response<PutCheckpointResponse>, Status> {
        Ok(Response::new(
            checkpoint_rpc::put(&self.0, request.into_inner()).await?,
        ))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<Self::GetCheckpointStream>, Status> {
        Ok(Response::new(
            checkpoint_rpc::get(&self.0, request.get_ref()).await?,
        ))
    }
}
