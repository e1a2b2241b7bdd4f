//! `StoreService`: the rendezvous store over gRPC.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::store_service_server::StoreService;
use proto::v1::{
    AddRequest, AddResponse, CompareSetRequest, CompareSetResponse, CountRequest, CountResponse,
    DeleteRequest, DeleteResponse, GetRequest, GetResponse, SetRequest, SetResponse, StoreScope,
    WaitRequest, WaitResponse,
};
use tonic::{Request, Response, Status};

use super::Context;
use super::rendezvous::RendezvousError;

/// Keys in one Wait.
const KEYS_LIMIT: usize = 4096;

/// See the module's description.
pub(crate) struct Store(pub(crate) Arc<Context>);

impl Store {
    /// The generation of a request, if it is of this run.
    fn generation(&self, scope: Option<StoreScope>) -> Result<u64, Status> {
        let scope = scope.ok_or_else(|| {
            Status::invalid_argument("the request has no scope: send run_id and generation with it")
        })?;
        self.0.check_run(&scope.run_id)?;
        Ok(scope.generation)
    }
}

impl From<RendezvousError> for Status {
    fn from(error: RendezvousError) -> Self {
        let text = error.to_string();
        match error {
            RendezvousError::Stale { .. } => Self::failed_precondition(text),
            RendezvousError::TimedOut { .. } => Self::deadline_exceeded(text),
            RendezvousError::TooMuch { .. } => Self::resource_exhausted(text),
            RendezvousError::NotANumber(_) => Self::invalid_argument(text),
        }
    }
}

#[tonic::async_trait]
impl StoreService for Store {
    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        let SetRequest { scope, key, value } = request.into_inner();
        self.0
            .rendezvous
            .set(self.generation(scope)?, &key, value)?;
        Ok(Response::new(SetResponse {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest {
            scope,
            key,
            timeout_millis,
        } = request.into_inner();
        let timeout = Duration::from_millis(timeout_millis);
        let value = self
            .0
            .rendezvous
            .get(self.generation(scope)?, &key, timeout)
            .await?;
        Ok(Response::new(GetResponse { value }))
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        let AddRequest { scope, key, amount } = request.into_inner();
        let value = self
            .0
            .rendezvous
            .add(self.generation(scope)?, &key, amount)?;
        Ok(Response::new(AddResponse { value }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let WaitRequest {
            scope,
            keys,
            timeout_millis,
        } = request.into_inner();
        if keys.len() > KEYS_LIMIT {
            return Err(Status::resource_exhausted(format!(
                "{} keys in one wait are over the limit of {KEYS_LIMIT}",
                keys.len()
            )));
        }
        let timeout = Duration::from_millis(timeout_millis);
        let present = self
            .0
            .rendezvous
            .wait(self.generation(scope)?, &keys, timeout)
            .await?;
        Ok(Response::new(WaitResponse { present }))
    }

    async fn compare_set(
        &self,
        request: Request<CompareSetRequest>,
    ) -> Result<Response<CompareSetResponse>, Status> {
        let CompareSetRequest {
            scope,
            key,
            expected,
            desired,
        } = request.into_inner();
        let value =
            self.0
                .rendezvous
                .compare_set(self.generation(scope)?, &key, expected, desired)?;
        Ok(Response::new(CompareSetResponse { value }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { scope, key } = request.into_inner();
        let existed = self.0.rendezvous.delete(self.generation(scope)?, &key)?;
        Ok(Response::new(DeleteResponse { existed }))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        let keys = self
            .0
            .rendezvous
            .count(self.generation(request.into_inner().scope)?)?;
        Ok(Response::new(CountResponse { keys }))
    }
}
