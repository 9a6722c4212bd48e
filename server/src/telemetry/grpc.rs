//! Counters per gRPC method, all there from the start at zero.

use prometheus::{Histogram, IntCounter, Registry};

use super::Family;

/// How many messages go each way in a call of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// One request, one reply.
    Unary,
    /// One request, many replies.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl MethodKind {
    fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// The names of gRPC's codes as Go has them, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CODE_UNKNOWN: usize = 2;

/// The name of a code of gRPC, as it is a label and in logs.
pub fn code_name(code: usize) -> &'static str {
    CODES.get(code).copied().unwrap_or(CODES[CODE_UNKNOWN])
}

/// Counters of every method, and of the bytes of all.
pub struct GrpcMetrics {
    methods: Vec<MethodMetrics>,
    /// Bytes of messages received from clients.
    pub received_bytes: IntCounter,
    /// Bytes of messages sent to clients.
    pub sent_bytes: IntCounter,
}

/// Counters of one method.
pub struct MethodMetrics {
    /// Calls begun.
    pub started: IntCounter,
    /// Messages received.
    pub received: IntCounter,
    /// Messages sent.
    pub sent: IntCounter,
    handled: Vec<IntCounter>,
    seconds: Option<Histogram>,
}

impl GrpcMetrics {
    /// Counters for `methods`, each `(service, method, kind)`; `extensive` adds a histogram to each.
    pub fn new(registry: &Registry, methods: &[(&str, &str, MethodKind)], extensive: bool) -> Self {
        const LABELS: [&str; 3] = ["grpc_method", "grpc_service", "grpc_type"];
        const CODE_LABELS: [&str; 4] = ["grpc_code", "grpc_method", "grpc_service", "grpc_type"];
        let grpc = Family::new(registry, "grpc_server_");
        let started = grpc.counters("started_total", "RPCs begun on the server.", &LABELS);
        let handled =
            grpc.counters("handled_total", "RPCs ended on the server, by code.", &CODE_LABELS);
        let received = grpc.counters(
            "msg_received_total",
            "Messages of RPCs received by the server.",
            &LABELS,
        );
        let sent = grpc.counters("msg_sent_total", "Messages of RPCs sent by the server.", &LABELS);
        let seconds = extensive.then(|| {
            let about = ("handling_seconds", "Time in RPCs on the server, in seconds.");
            grpc.histograms(about, &LABELS, 0.001, 14)
        });
        let methods = methods
            .iter()
            .map(|(service, method, kind)| {
                let labels = [*method, *service, kind.label()];
                MethodMetrics {
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    handled: CODES
                        .iter()
                        .map(|code| {
                            handled.with_label_values(&[*code, labels[0], labels[1], labels[2]])
                        })
                        .collect(),
                    seconds: seconds.as_ref().map(|vec| vec.with_label_values(&labels)),
                }
            })
            .collect();
        let client = Family::new(registry, "etcd_network_client_grpc_");
        Self {
            methods,
            received_bytes: client
                .counter("received_bytes_total", "Bytes received from gRPC clients."),
            sent_bytes: client.counter("sent_bytes_total", "Bytes sent to gRPC clients."),
        }
    }

    /// The counters of the method at `index` in the list given to [`GrpcMetrics::new`].
    pub fn method(&self, index: usize) -> &MethodMetrics {
        &self.methods[index]
    }
}

impl MethodMetrics {
    /// Counts a call that ended with `code` after `seconds`.
    pub fn ended(&self, code: usize, seconds: f64) {
        self.handled[if code < CODES.len() { code } else { CODE_UNKNOWN }].inc();
        if let Some(histogram) = &self.seconds {
            histogram.observe(seconds);
        }
    }

    /// Calls that ended with `code`.
    pub fn handled(&self, code: usize) -> u64 {
        self.handled.get(code).map_or(0, IntCounter::get)
    }
}
