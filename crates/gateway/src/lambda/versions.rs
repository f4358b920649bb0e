//! The operations on versions and aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use lacewing_model::{Alias, Error, Function, Kind, Result, Version};
use lacewing_services::{AliasPatch, NewAlias, Publish, Routing};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::body::{self, Body};
use crate::gateway::{Answer, Call, Inner};
use crate::lambda::document::Extent;
use crate::lambda::functions::{authorize, document, shown};
use crate::lambda::name::{self, Target};
use crate::lambda::{Route, input, page, settings};
use crate::query;

/// `PublishVersion`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PublishVersion {
    code_sha256: Option<String>,
    description: Option<String>,
    revision_id: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// `CreateAlias` and `UpdateAlias`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AliasInput {
    name: Option<String>,
    function_version: Option<String>,
    description: Option<String>,
    routing_config: Option<RoutingConfig>,
    revision_id: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// `RoutingConfig`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RoutingConfig {
    additional_version_weights: Option<BTreeMap<String, f64>>,
}

/// `PublishVersion`.
pub(crate) async fn publish(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:PublishVersion", route)?;
    let input: PublishVersion = optional_document(&call.body.bytes)?;
    settings::refuse(&input.others)?;
    let publish = Publish {
        code_sha256: input.code_sha256.filter(|digest| !digest.is_empty()),
        description: input.description.filter(|text| !text.is_empty()),
        revision_id: input::revision(input.revision_id.as_deref())?,
    };
    let version = inner.services.functions.publish(&target.key, publish).await?;
    let qualifier = version.version.into();
    Ok(document(route, &shown(inner, &version, Some(&qualifier), Extent::Whole)))
}

/// `ListVersionsByFunction`.
pub(crate) fn list(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:ListVersionsByFunction", route)?;
    let _exists = inner.services.functions.get(&target.key)?;
    let query = call.parts.uri.query();
    let (limit, after) = (page::size(query)?, page::after(query)?);
    let found = inner.services.catalog.versions(&target.key, after, limit + 1);
    let entry = |version: &Arc<Function>| {
        let qualifier = version.version.into();
        shown(inner, version, Some(&qualifier), Extent::Listed)
    };
    let marker = |version: &Arc<Function>| page::marker(&version.version);
    Ok(document(route, &page::document("Versions", found, limit, entry, marker)))
}

/// `CreateAlias`.
pub(crate) async fn create_alias(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:CreateAlias", route)?;
    let input: AliasInput = input::document(&call.body.bytes)?;
    settings::refuse(&input.others)?;
    let new = NewAlias {
        name: input::required(input.name, "name")?,
        version: version(&input::required(input.function_version, "functionVersion")?)?,
        routing: routing(input.routing_config.as_ref())?.flatten(),
        description: input.description.unwrap_or_default(),
    };
    let alias = inner.services.functions.create_alias(&target.key, new).await?;
    Ok(document(route, &described(&alias)))
}

/// `GetAlias`.
pub(crate) fn get_alias(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:GetAlias", route)?;
    let _exists = inner.services.functions.get(&target.key)?;
    let alias = inner.services.functions.get_alias(&target.key, &route.second)?;
    Ok(document(route, &described(&alias)))
}

/// `ListAliases`.
pub(crate) fn list_aliases(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:ListAliases", route)?;
    let _exists = inner.services.functions.get(&target.key)?;
    let query = call.parts.uri.query();
    let (limit, after) = (page::size(query)?, page::after::<String>(query)?);
    let wanted = query::parameter(query, "FunctionVersion")?.map(|text| version(&text));
    let wanted = wanted.transpose()?;
    let mut found = inner.services.catalog.aliases(&target.key, after.as_deref(), usize::MAX);
    found.retain(|alias| wanted.is_none_or(|wanted| points_to(alias, wanted)));
    found.truncate(limit + 1);
    let marker = |alias: &Arc<Alias>| page::marker(&&*alias.name);
    let answer = page::document("Aliases", found, limit, |alias| described(alias), marker);
    Ok(document(route, &answer))
}

/// `UpdateAlias`.
pub(crate) async fn update_alias(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:UpdateAlias", route)?;
    let input: AliasInput = optional_document(&call.body.bytes)?;
    settings::refuse(&input.others)?;
    let patch = AliasPatch {
        version: input.function_version.map(|text| version(&text)).transpose()?,
        routing: routing(input.routing_config.as_ref())?,
        description: input.description,
        revision_id: input::revision(input.revision_id.as_deref())?,
    };
    let _exists = inner.services.functions.get(&target.key)?;
    let alias = inner.services.functions.update_alias(&target.key, &route.second, patch).await?;
    Ok(document(route, &described(&alias)))
}

/// `DeleteAlias`.
pub(crate) async fn delete_alias(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:DeleteAlias", route)?;
    inner.services.functions.delete_alias(&target.key, &route.second).await?;
    Ok(nothing())
}

/// The answer to what leaves nothing to show.
pub(crate) fn nothing() -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The function in the path, for operations that have no qualifier.
pub(crate) fn whole_function(
    inner: &Inner,
    call: &Call,
    action: &str,
    route: &Route,
) -> Result<Target> {
    let target = name::resolve(inner, call, action, &route.resource)?;
    target.require_unqualified()?;
    authorize(inner, call, action, &target.key.arn().to_string())?;
    Ok(target)
}

/// Reads a document of which all members are optional: none at all is one, too.
fn optional_document<T: Default + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.is_empty() { Ok(T::default()) } else { input::document(bytes) }
}

fn version(text: &str) -> Result<Version> {
    if text == "$LATEST" {
        return Ok(Version::Latest);
    }
    text.parse().map(Version::Published).map_err(|_| {
        let message = format!(
            "1 validation error detected: Value '{text}' at 'functionVersion' failed to satisfy \
             constraint: Member must satisfy regular expression pattern: (\\$LATEST|[0-9]+)"
        );
        Error::new(Kind::Constraint, message)
    })
}

/// What a request says of an alias's second version; `Some(None)` says that there is none.
fn routing(config: Option<&RoutingConfig>) -> Result<Option<Routing>> {
    let Some(config) = config else { return Ok(None) };
    let none = BTreeMap::new();
    let weights = config.additional_version_weights.as_ref().unwrap_or(&none);
    if weights.len() > 1 {
        let message = "Number of items in AdditionalVersionWeights cannot be greater than 1";
        return Err(Error::new(Kind::Invalid, message));
    }
    let Some((text, part)) = weights.iter().next() else { return Ok(Some(None)) };
    let number = text.parse().map_err(|_| {
        let message = format!(
            "1 validation error detected: Value '{{{text}={part:?}}}' at \
             'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must \
             satisfy constraint: [Member must have length less than or equal to 1024, Member must \
             have length greater than or equal to 1, Member must satisfy regular expression \
             pattern: [0-9]+, Member must not be null]"
        );
        Error::new(Kind::Constraint, message)
    })?;
    Ok(Some(Some((number, *part))))
}

fn points_to(alias: &Alias, version: Version) -> bool {
    let second = alias.second.map(|(number, _)| Version::Published(number));
    alias.version == version || second == Some(version)
}

/// The document `AliasConfiguration`. Without a second version there is no `RoutingConfig`.
fn described(alias: &Alias) -> Value {
    let mut document = json!({
        "AliasArn": alias.arn().to_string(),
        "Name": &*alias.name,
        "FunctionVersion": alias.version.to_string(),
        "Description": alias.description,
        "RevisionId": alias.revision_id.to_string(),
    });
    if let Some((number, part)) = alias.second {
        document["RoutingConfig"] = json!({"AdditionalVersionWeights": {number.to_string(): part}});
    }
    document
}
