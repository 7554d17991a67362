//! Compression as a client offers it, and what the server made of the offer.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client::OpenError;
use crate::deflate::{Agreed, Settings, negotiate};

/// The header field of both.
pub(super) const FIELD: HeaderName = header::SEC_WEBSOCKET_EXTENSIONS;

/// The value of the request's field, if there is to be one.
pub(super) fn offer(settings: Option<&Settings>) -> Option<HeaderValue> {
    HeaderValue::try_from(negotiate::offer(settings?)).ok()
}

/// What a response says.
///
/// # Errors
/// When it is none to what was offered.
pub(super) fn judge(headers: &HeaderMap, settings: Option<&Settings>) -> Result<Option<Agreed>, OpenError> {
    let mut fields = headers.get_all(FIELD).iter().filter_map(|value| value.to_str().ok());
    match settings {
        Some(settings) => negotiate::judge(fields, settings).map_err(|_| OpenError::Compression),
        None if fields.any(|field| !field.trim().is_empty()) => Err(OpenError::Compression),
        None => Ok(None),
    }
}
