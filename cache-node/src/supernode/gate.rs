//! A service that is there from the start of the process, and answers only while a super-node runs
//! behind it: listeners take their services before they listen, and a node is chosen later.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use shoal_proto::{ErrorKind, RpcError};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// The place of a service. Clones are the same place.
#[derive(Debug)]
pub struct Gate<S> {
    behind: Arc<RwLock<Option<S>>>,
}

impl<S> Gate<S> {
    /// Nothing behind it.
    pub fn closed() -> Self {
        Self { behind: Arc::new(RwLock::new(None)) }
    }

    /// Puts a service behind it.
    pub fn open(&self, service: S) {
        *self.behind.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    }

    /// Takes the service away; calls that run go on.
    pub fn close(&self) {
        *self.behind.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { behind: Arc::clone(&self.behind) }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let behind = self.behind.read().unwrap_or_else(PoisonError::into_inner).clone();
        match behind {
            Some(mut service) => service.call(request).boxed(),
            None => {
                let error = RpcError::new(ErrorKind::Retry, "this node is no super-node now");
                async move { Ok(Status::from(error).into_http()) }.boxed()
            }
        }
    }
}
