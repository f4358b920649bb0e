//! The operations on functions: from request documents to our services and back.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use lacewing_invoke::Invoker;
use lacewing_model::{
    Error, Function, FunctionConfig, FunctionName, Kind, Qualifier, Result, Version, VersionKey,
    limits,
};
use lacewing_services::{ConfigPatch, NewFunction, UpdateCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::admin;
use crate::body::{self, Body};
use crate::error::Failure;
use crate::gateway::{Answer, Call, Inner};
use crate::lambda::document::{Extent, configuration};
use crate::lambda::input::{
    self, CreateFunction, SnapStartInput, UpdateFunctionCode, UpdateFunctionConfiguration,
    Violations,
};
use crate::lambda::name::{self, Target};
use crate::lambda::{Route, concurrency, logging, page, settings};
use crate::query;
use crate::sigv4::Signer;

/// `CreateFunction`.
pub(crate) async fn create(inner: &Inner, call: Call, route: &Route) -> Answer {
    let input: CreateFunction = parse_large(call.body.bytes.clone()).await?;
    let mut violations = Violations::default();
    let name = violations.required(input.function_name.as_deref(), "functionName");
    let found = name.map(|name| {
        let target = name::resolve(inner, &call, "lambda:CreateFunction", name)?;
        target.require_unqualified()?;
        authorize(inner, &call, "lambda:CreateFunction", &target.key.arn().to_string())?;
        Ok(target)
    });
    let target = found.map_or(Ok(None), |found| violations.hear(found))?;
    let publish = input.publish.unwrap_or(false);
    let (config, zip) = new_function(input, violations)?;
    let target = target.ok_or_else(|| Error::internal("create a function", "it has no name"))?;
    let new = NewFunction { config, zip, publish };
    let function = inner.services.functions.create(&target.key, new).await?;
    Ok(document(route, &changed(inner, &function)))
}

/// `GetFunction`.
pub(crate) fn get(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let (target, function) = find(inner, call, "lambda:GetFunction", &route.resource)?;
    let mut answer = json!({
        "Configuration": shown(inner, &function, target.qualifier.as_ref(), Extent::Whole),
        "Code": {"RepositoryType": "S3", "Location": link(inner, call, &function.version_key())?},
    });
    if !function.config.tags.is_empty() {
        answer["Tags"] = json!(function.config.tags);
    }
    if let Some(reserved) = inner.services.functions.reserved(&target.key)? {
        answer["Concurrency"] = concurrency::document(reserved);
    }
    Ok(document(route, &answer))
}

/// `GetFunctionConfiguration`.
pub(crate) fn get_configuration(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let action = "lambda:GetFunctionConfiguration";
    let (target, function) = find(inner, call, action, &route.resource)?;
    let answer = shown(inner, &function, target.qualifier.as_ref(), Extent::Whole);
    Ok(document(route, &answer))
}

/// `ListFunctions`.
pub(crate) fn list(inner: &Inner, call: &Call, route: &Route) -> Answer {
    authorize(inner, call, "lambda:ListFunctions", "*")?;
    let query = call.parts.uri.query();
    let with_versions = match query::parameter(query, "FunctionVersion")?.as_deref() {
        None => false,
        Some("ALL") => true,
        Some(other) => return Err(not_among(other, "functionVersion", "ALL").into()),
    };
    let region = &inner.options.region;
    match query::parameter(query, "MasterRegion")?.as_deref() {
        Some(master) if master != "ALL" && master != region.as_str() => {
            let message = "MasterRegion is not supported by Lacewing: no function is replicated.";
            return Err(Error::new(Kind::Unsupported, message).into());
        }
        _ => {}
    }
    let limit = page::size(query)?;
    let after: Option<(FunctionName, Version)> = page::after(query)?;
    let account = &call.caller.principal.account;
    let catalog = &inner.services.catalog;
    let found = if with_versions {
        catalog.all_versions(account, region, after.as_ref(), limit + 1)
    } else {
        catalog.list(account, region, after.as_ref().map(|(name, _)| name), limit + 1)
    };
    let entry = |function: &Arc<Function>| {
        let qualifier = with_versions.then(|| function.version.into());
        shown(inner, function, qualifier.as_ref(), Extent::Listed)
    };
    let marker = |function: &Arc<Function>| page::marker(&(&function.key.name, function.version));
    Ok(document(route, &page::document("Functions", found, limit, entry, marker)))
}

/// `UpdateFunctionCode`.
pub(crate) async fn update_code(inner: &Inner, call: Call, route: &Route) -> Answer {
    let action = "lambda:UpdateFunctionCode";
    let target = name::resolve(inner, &call, action, &route.resource)?;
    target.require_unqualified()?;
    authorize(inner, &call, action, &target.key.arn().to_string())?;
    let input: UpdateFunctionCode = parse_large(call.body.bytes.clone()).await?;
    settings::refuse(&input.others)?;
    let update = UpdateCode {
        zip: code(input.zip_file)?,
        architecture: input::architecture(input.architectures.as_deref())?,
        revision_id: input::revision(input.revision_id.as_deref())?,
        dry_run: input.dry_run,
        publish: input.publish.unwrap_or(false),
    };
    let function = inner.services.functions.update_code(&target.key, update).await?;
    Ok(document(route, &changed(inner, &function)))
}

/// `UpdateFunctionConfiguration`.
pub(crate) async fn update_configuration(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let action = "lambda:UpdateFunctionConfiguration";
    let target = name::resolve(inner, call, action, &route.resource)?;
    target.require_unqualified()?;
    authorize(inner, call, action, &target.key.arn().to_string())?;
    let input: UpdateFunctionConfiguration = input::document(&call.body.bytes)?;
    settings::refuse(&input.others)?;
    let mut violations = Violations::default();
    let patch = ConfigPatch {
        runtime: input.runtime.map(|runtime| runtime.parse()).transpose()?,
        handler: input.handler,
        role: input.role,
        description: input.description,
        timeout_seconds: violations.read(input.timeout, "timeout", limits::TIMEOUT_SECONDS),
        memory_mb: violations.read(input.memory_size, "memorySize", limits::MEMORY_MB),
        ephemeral_mb: violations.read(
            input.ephemeral_storage.map(|storage| storage.size),
            "ephemeralStorage.size",
            limits::EPHEMERAL_MB,
        ),
        environment: input.environment.map(Into::into),
        logging: logging::patch(input.logging_config)?,
        snap_start: input.snap_start.map_or(Ok(None), SnapStartInput::read)?,
        revision_id: input::revision(input.revision_id.as_deref())?,
    };
    violations.check()?;
    let function = inner.services.functions.update_config(&target.key, patch).await?;
    Ok(document(route, &changed(inner, &function)))
}

/// `DeleteFunction`.
pub(crate) async fn delete(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let action = "lambda:DeleteFunction";
    let target = name::resolve(inner, call, action, &route.resource)?;
    authorize(inner, call, action, &target.arn())?;
    match &target.qualifier {
        None => {
            inner.services.functions.delete(&target.key).await?;
            concurrency::put_in_force(inner, &target.key);
        }
        Some(Qualifier::Version(number)) => {
            inner.services.functions.delete_version(&target.key, *number).await?;
        }
        Some(Qualifier::Latest) => {
            let message = "$LATEST version cannot be deleted without deleting the function.";
            return Err(Error::new(Kind::Invalid, message).into());
        }
        Some(Qualifier::Alias(_)) => {
            let message = "Deletion of aliases is not currently supported.";
            return Err(Error::new(Kind::Invalid, message).into());
        }
    }
    // The model says 200 and lets the answer say otherwise: it is 204 for what is done at once.
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `GetAccountSettings`.
pub(crate) fn account_settings(inner: &Inner, call: &Call, route: &Route) -> Answer {
    authorize(inner, call, "lambda:GetAccountSettings", "*")?;
    let account = &call.caller.principal.account;
    let usage = inner.services.functions.account_usage(account);
    let answer = json!({
        "AccountLimit": {
            "TotalCodeSize": limits::CODE_STORAGE.as_bytes(),
            "CodeSizeUnzipped": limits::UNZIPPED.as_bytes(),
            "CodeSizeZipped": limits::ZIP_DIRECT.as_bytes(),
            "ConcurrentExecutions": inner.options.account_concurrency,
            "UnreservedConcurrentExecutions":
                inner.services.functions.unreserved(account, &inner.options.region),
        },
        "AccountUsage": {
            "TotalCodeSize": usage.code_size.as_bytes(),
            "FunctionCount": usage.function_count,
        },
    });
    Ok(document(route, &answer))
}

/// What a request has made or changed: `$LATEST`, or the version that it published.
fn changed(inner: &Inner, function: &Function) -> Value {
    let qualifier = match function.version {
        Version::Latest => None,
        version @ Version::Published(_) => Some(version.into()),
    };
    described(inner, function, qualifier.as_ref(), Extent::Whole)
}

fn described(
    inner: &Inner,
    function: &Function,
    qualifier: Option<&Qualifier>,
    extent: Extent,
) -> Value {
    let serving = inner.services.functions.runtime_version(function.config.runtime);
    configuration(function, serving.as_ref(), qualifier, extent)
}

/// The document of a function, with what only its Instances have shown.
pub(crate) fn shown(
    inner: &Inner,
    function: &Function,
    qualifier: Option<&Qualifier>,
    extent: Extent,
) -> Value {
    let mut document = described(inner, function, qualifier, extent);
    let lacks = |invoker: &Invoker| invoker.lacks_snapshot(function).is_some();
    if function.is_snap_started() && inner.invoker().is_ok_and(lacks) {
        document["SnapStart"]["OptimizationStatus"] = json!("Off");
    }
    document
}

/// The version that a request may read.
fn find(inner: &Inner, call: &Call, action: &str, text: &str) -> Result<(Target, Arc<Function>)> {
    let target = name::resolve(inner, call, action, text)?;
    authorize(inner, call, action, &target.arn())?;
    let function = inner.services.functions.get_named(&target.key, target.qualifier.as_ref())?;
    Ok((target, function))
}

pub(crate) fn authorize(inner: &Inner, call: &Call, action: &str, resource: &str) -> Result<()> {
    inner.services.identity.authorize(&call.caller.principal, action, resource)
}

/// Parses a document that may hold a package, away from the threads that serve connections.
async fn parse_large<T: DeserializeOwned + Send + 'static>(bytes: Bytes) -> Result<T> {
    let parsed = spawn_blocking(move || input::document(&bytes)).await;
    parsed.map_err(|error| Error::internal("cannot parse a request document", error))?
}

/// The configuration and the package that a `CreateFunction` asks for, of which some violations
/// may be known.
///
/// # Errors
/// If something is missing, unknown or does not fit.
pub(crate) fn new_function(
    input: CreateFunction,
    mut violations: Violations,
) -> Result<(FunctionConfig, Bytes)> {
    settings::refuse(&input.others)?;
    let source = violations.required(input.code, "code");
    let role = violations.required(input.role, "role");
    let timeout = violations.read(input.timeout, "timeout", limits::TIMEOUT_SECONDS);
    let memory = violations.read(input.memory_size, "memorySize", limits::MEMORY_MB);
    let ephemeral = violations.read(
        input.ephemeral_storage.map(|storage| storage.size),
        "ephemeralStorage.size",
        limits::EPHEMERAL_MB,
    );
    let (Some(source), Some(role)) = (source, role) else {
        violations.check()?;
        return Err(Error::internal("create a function", "code or role is missing"));
    };
    settings::refuse(&source.others)?;
    let (Some(runtime), Some(handler)) = (input.runtime, input.handler) else {
        violations.check()?;
        let message = "Runtime and Handler are mandatory parameters for functions created with \
                       deployment packages.";
        return Err(Error::new(Kind::Invalid, message));
    };
    let mut config = FunctionConfig::new(runtime.parse()?, handler, role);
    config.description = input.description.unwrap_or_default();
    config.timeout_seconds = timeout.unwrap_or(config.timeout_seconds);
    config.memory_mb = memory.unwrap_or(config.memory_mb);
    config.ephemeral_mb = ephemeral.unwrap_or(config.ephemeral_mb);
    let architecture = violations.hear(input::architecture(input.architectures.as_deref()))?;
    config.architecture = architecture.flatten().unwrap_or(config.architecture);
    config.environment = input.environment.map(Into::into);
    config.logging = config.logging.patched(&logging::patch(input.logging_config)?)?;
    config.snap_start = input.snap_start.map_or(Ok(None), SnapStartInput::read)?.unwrap_or(false);
    config.tags = input.tags.unwrap_or_default();
    violations.hear(lacewing_services::functions::check(&config))?;
    violations.check()?;
    Ok((config, code(source.zip_file)?))
}

fn code(zip: Option<input::Blob>) -> Result<Bytes> {
    let missing = || Error::new(Kind::Invalid, "Please provide the function's code as ZipFile.");
    zip.map(|zip| zip.0).ok_or_else(missing)
}

pub(crate) fn not_among(value: &str, path: &str, values: &str) -> Error {
    let message = format!(
        "1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: \
         Member must satisfy enum value set: [{values}]"
    );
    Error::new(Kind::Constraint, message)
}

/// A link to a version's package, signed with the caller's own key: it can do no more than he.
fn link(inner: &Inner, call: &Call, key: &VersionKey) -> Result<String, Failure> {
    let host = host(&call.parts);
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("http://{host}{}", admin::code_path(key)))
        .body(())
        .map_err(|_| Error::new(Kind::Invalid, "The Host header is malformed."))?;
    let (mut parts, ()) = request.into_parts();
    let signer = Signer {
        credentials: &call.caller.credentials,
        region: &inner.options.region,
        service: "lacewing",
    };
    signer
        .presign(&mut parts, inner.clock.now(), limits::CODE_LINK)
        .map_err(|error| Error::internal("cannot sign a link to a package", error))?;
    Ok(parts.uri.to_string())
}

/// The host that the client knows us by.
fn host(parts: &Parts) -> &str {
    let header = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| parts.uri.authority().map(|host| host.as_str())).unwrap_or_default()
}

/// An answer with the status that the model gives the operation.
pub(crate) fn document(route: &Route, answer: &Value) -> Response<Body> {
    let mut response = Response::new(body::full(answer.to_string()));
    *response.status_mut() = route.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
