//! stub
use super::{Gateway, Exchange};
use pingora_proxy::Session; use pingora_core::Error;
impl Gateway { pub(super) fn write_down(&self, _s: &Session, _e: Option<&Error>, _x: &mut Exchange) {} }
