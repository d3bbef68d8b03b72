//! How one node reaches another and who is let in, given by the node to what opens channels and serves calls.

use std::fmt;
use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Extensions, Request, Status};

type DialFunction = dyn Fn(&Endpoint) -> Channel + Send + Sync;

/// Opens channels, which connect when they are first used. By default without encryption. Clones share it.
#[derive(Clone)]
pub struct Dial(Arc<DialFunction>);

impl Dial {
    /// A dial that makes channels by a function.
    pub fn new(dial: impl Fn(&Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        Self(Arc::new(dial))
    }

    /// A channel to an endpoint.
    pub fn channel(&self, endpoint: &Endpoint) -> Channel {
        (self.0)(endpoint)
    }
}

impl Default for Dial {
    fn default() -> Self {
        Self::new(Endpoint::connect_lazy)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

type GateFunction = dyn Fn(&Extensions) -> bool + Send + Sync;

/// Lets in callers that may do what nodes do among themselves. By default everybody. Clones share it.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<GateFunction>>);

impl Gate {
    /// A gate that asks a function, by what is known of the connection.
    pub fn new(admits: impl Fn(&Extensions) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(admits)))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match &self.0 {
            Some(admits) if !admits(request.extensions()) => {
                Err(Status::permission_denied("only nodes of the cluster may call this"))
            }
            _ => Ok(request),
        }
    }
}
