//! The Health service of gRPC. As in etcd it knows the server as a whole, which serves whenever it
//! answers; `/health` and `/readyz` say more.

use std::collections::HashMap;
use std::pin::Pin;

use quorate_proto::grpc_health::health_check_response::ServingStatus;
use quorate_proto::grpc_health::health_server::Health;
use quorate_proto::grpc_health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// The name of the server as a whole.
const SERVER: &str = "";

/// Serves the states of services.
#[derive(Clone, Copy)]
pub(super) struct HealthService;

fn state(service: &str) -> Option<HealthCheckResponse> {
    (service == SERVER).then(|| reply(ServingStatus::Serving))
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let found = state(&request.get_ref().service);
        found.map(Response::new).ok_or_else(|| Status::not_found("unknown service"))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let serving = (SERVER.to_owned(), reply(ServingStatus::Serving));
        Ok(Response::new(HealthListResponse { statuses: HashMap::from([serving]) }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let now = state(&request.get_ref().service);
        let now = now.unwrap_or_else(|| reply(ServingStatus::ServiceUnknown));
        // It never changes, and the stream is open until the client or the server leaves.
        let states = tokio_stream::once(Ok(now)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(states)))
    }
}
