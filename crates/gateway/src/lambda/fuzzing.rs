//! The share of the Lambda API in the doors for the fuzz targets.

use http::HeaderMap;
use lacewing_model::Result;

use super::input::{UpdateFunctionCode, UpdateFunctionConfiguration, Violations, document};
use super::{functions, invoke};

pub(crate) fn client_context(headers: &HeaderMap) -> Result<Option<String>> {
    invoke::client_context(headers)
}

pub(crate) fn create_function(bytes: &[u8]) -> Result<Vec<u8>> {
    let (_config, package) = functions::new_function(document(bytes)?, Violations::default())?;
    Ok(package.into())
}

pub(crate) fn update_function(bytes: &[u8]) -> (bool, bool) {
    let code = document::<UpdateFunctionCode>(bytes).is_ok();
    (code, document::<UpdateFunctionConfiguration>(bytes).is_ok())
}
