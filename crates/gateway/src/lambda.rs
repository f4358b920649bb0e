//! The Lambda API: which operation a request is for, and the operations that are built.
//!
//! All operations of the public model are known; one that is not built yet answers 501 and names
//! itself. A setting that is not supported is refused by name, never ignored.

mod concurrency;
mod document;
mod functions;
pub(crate) mod fuzzing;
mod generated;
mod input;
mod invoke;
mod logging;
pub(crate) mod name;
mod page;
mod provisioned;
mod settings;
mod streaming;
mod table;
mod versions;

pub(crate) use table::{Route, Routes};

use crate::error::Failure;
use crate::gateway::{Answer, Call, Inner};

/// Answers a request for an operation of Lambda.
pub(crate) async fn handle(inner: &Inner, call: Call, route: Route) -> Answer {
    match route.operation.name {
        "Invoke" => invoke::invoke(inner, call, &route).await,
        "InvokeWithResponseStream" => streaming::invoke(inner, call, &route).await,
        "CreateFunction" => functions::create(inner, call, &route).await,
        "GetFunction" => functions::get(inner, &call, &route),
        "GetFunctionConfiguration" => functions::get_configuration(inner, &call, &route),
        "ListFunctions" => functions::list(inner, &call, &route),
        "UpdateFunctionCode" => functions::update_code(inner, call, &route).await,
        "UpdateFunctionConfiguration" => {
            functions::update_configuration(inner, &call, &route).await
        }
        "DeleteFunction" => functions::delete(inner, &call, &route).await,
        "GetAccountSettings" => functions::account_settings(inner, &call, &route),
        "PutFunctionConcurrency" => concurrency::put(inner, &call, &route).await,
        "GetFunctionConcurrency" => concurrency::get(inner, &call, &route),
        "DeleteFunctionConcurrency" => concurrency::delete(inner, &call, &route).await,
        "PutProvisionedConcurrencyConfig" => provisioned::put(inner, &call, &route).await,
        "GetProvisionedConcurrencyConfig" => provisioned::get(inner, &call, &route),
        "ListProvisionedConcurrencyConfigs" => provisioned::list(inner, &call, &route),
        "DeleteProvisionedConcurrencyConfig" => provisioned::delete(inner, &call, &route).await,
        "PublishVersion" => versions::publish(inner, &call, &route).await,
        "ListVersionsByFunction" => versions::list(inner, &call, &route),
        "CreateAlias" => versions::create_alias(inner, &call, &route).await,
        "GetAlias" => versions::get_alias(inner, &call, &route),
        "ListAliases" => versions::list_aliases(inner, &call, &route),
        "UpdateAlias" => versions::update_alias(inner, &call, &route).await,
        "DeleteAlias" => versions::delete_alias(inner, &call, &route).await,
        name => Err(Failure::NotImplemented(name)),
    }
}

/// All exceptions of the public model.
#[cfg(test)]
pub(crate) fn exceptions() -> &'static [table::Exception] {
    generated::EXCEPTIONS
}
