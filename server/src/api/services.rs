//! The services, and which of them answers a method.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use quorate_proto::etcdserverpb::auth_server::AuthServer;
use quorate_proto::etcdserverpb::cluster_server::ClusterServer;
use quorate_proto::etcdserverpb::kv_server::KvServer;
use quorate_proto::etcdserverpb::lease_server::LeaseServer;
use quorate_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_proto::grpc_health::health_server::HealthServer;
use quorate_proto::v3electionpb::election_server::ElectionServer;
use quorate_proto::v3lockpb::lock_server::LockServer;
use tonic::codegen::Service;

use super::auth::AuthService;
use super::body::RequestBody;
use super::cluster::ClusterService;
use super::concurrency::Concurrency;
use super::context::Context;
use super::election::ElectionService;
use super::health::HealthService;
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::methods::METHODS;
use super::unavailable;

/// A reply as tonic makes it.
pub(super) type HttpReply = Response<tonic::body::Body>;
type Dispatch = Box<
    dyn Fn(Request<RequestBody>) -> Pin<Box<dyn Future<Output = HttpReply> + Send>> + Send + Sync,
>;

/// All services of one member but Watch, which is served without tonic.
pub(super) struct Services {
    kv: KvServer<KvService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    health: HealthServer<HealthService>,
    reflection: Dispatch,
    reflection_alpha: Dispatch,
}

impl Services {
    /// The services of `context`'s member.
    pub(super) fn new(context: &Context) -> Self {
        const DESCRIBED: &str = "the descriptors are compiled in";
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(quorate_proto::DESCRIPTORS)
        };
        // The length is checked by `RequestBody`, with the text of gRPC for Go.
        let unlimited = usize::MAX;
        let kv = KvServer::new(KvService::new(context.clone()));
        let lease = LeaseServer::new(LeaseService::new(context.clone()));
        let cluster = ClusterServer::new(ClusterService::new(context.clone()));
        let maintenance = MaintenanceServer::new(MaintenanceService::new(context.clone()));
        let concurrency = Concurrency::new(context.clone());
        let lock = LockServer::new(LockService::new(Arc::clone(&concurrency)));
        let election = ElectionServer::new(ElectionService::new(concurrency));
        let auth = AuthServer::new(AuthService::new(context.clone()));
        Self {
            kv: kv.max_decoding_message_size(unlimited).max_encoding_message_size(unlimited),
            lease: lease.max_decoding_message_size(unlimited),
            cluster: cluster.max_decoding_message_size(unlimited),
            maintenance: maintenance.max_decoding_message_size(unlimited),
            auth: auth.max_decoding_message_size(unlimited),
            lock: lock.max_decoding_message_size(unlimited),
            election: election.max_decoding_message_size(unlimited),
            health: HealthServer::new(HealthService),
            reflection: dispatch(reflection().build_v1().expect(DESCRIBED)),
            reflection_alpha: dispatch(reflection().build_v1alpha().expect(DESCRIBED)),
        }
    }

    /// Has the service of `METHODS[method]` answer.
    pub(super) async fn call(&self, method: usize, request: Request<RequestBody>) -> HttpReply {
        let (service, name, _) = METHODS[method];
        match service {
            "etcdserverpb.KV" => serve(self.kv.clone().call(request)).await,
            "etcdserverpb.Lease" => serve(self.lease.clone().call(request)).await,
            "etcdserverpb.Maintenance" => serve(self.maintenance.clone().call(request)).await,
            "etcdserverpb.Cluster" => serve(self.cluster.clone().call(request)).await,
            "etcdserverpb.Auth" => serve(self.auth.clone().call(request)).await,
            "v3lockpb.Lock" => serve(self.lock.clone().call(request)).await,
            "v3electionpb.Election" => serve(self.election.clone().call(request)).await,
            "grpc.health.v1.Health" => serve(self.health.clone().call(request)).await,
            "grpc.reflection.v1.ServerReflection" => (self.reflection)(request).await,
            "grpc.reflection.v1alpha.ServerReflection" => (self.reflection_alpha)(request).await,
            _ => unavailable(&format!("{service}/{name}")).into_http(),
        }
    }
}

fn dispatch<S>(server: S) -> Dispatch
where
    S: Service<Request<RequestBody>, Response = HttpReply, Error = std::convert::Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    Box::new(move |request| {
        let reply = server.clone().call(request);
        Box::pin(async move { serve(reply).await })
    })
}

async fn serve(
    reply: impl Future<Output = Result<HttpReply, std::convert::Infallible>>,
) -> HttpReply {
    match reply.await {
        Ok(reply) => reply,
        Err(never) => match never {},
    }
}
