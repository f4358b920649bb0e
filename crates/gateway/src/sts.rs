//! The part of STS that every AWS tool calls: `GetCallerIdentity`, in the query protocol.
//!
//! Source: "GetCallerIdentity",
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>.

use aws_lc_rs::digest;
use http::Response;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use lacewing_model::principal::Identity;
use lacewing_model::{Error, Kind, Principal};

use crate::body;
use crate::error::{Failure, Protocol, xml_text};
use crate::gateway::{Answer, Call};
use crate::query;

/// The digits of base 32, which ids of AWS are written in.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// How errors of a request are to be written, by the service that its claim names.
pub(crate) fn protocol(parts: &Parts) -> Protocol {
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let query = parts.uri.query().unwrap_or_default();
    let is_sts = header.is_some_and(|value| value.contains("/sts/aws4_request"))
        || query.contains("%2Fsts%2Faws4_request");
    if is_sts { Protocol::Query } else { Protocol::Json }
}

/// Answers a request that was signed for STS.
pub(crate) fn handle(call: &Call) -> Answer {
    let form = std::str::from_utf8(&call.body.bytes)
        .map_err(|_| Error::new(Kind::Invalid, "The form is no UTF-8."))?;
    let mut action = query::field(form, "Action")?;
    if action.is_none() {
        action = query::parameter(call.parts.uri.query(), "Action")?.map(Into::into);
    }
    if action.as_deref() != Some("GetCallerIdentity") {
        return Err(Failure::UnknownOperation);
    }
    let Principal { account, .. } = &call.caller.principal;
    let document = format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <GetCallerIdentityResult><Arn>{}</Arn><UserId>{}</UserId><Account>{account}</Account>\
         </GetCallerIdentityResult><ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>",
        xml_text(&call.caller.principal.arn()),
        xml_text(&user_id(&call.caller.principal)),
        call.request_id,
    );
    let mut response = Response::new(body::full(document));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    Ok(response)
}

/// The stable id of a principal: the account for its root, `AROA...:SESSION` for a role's session.
fn user_id(principal: &Principal) -> String {
    match &principal.identity {
        Identity::Root => principal.account.to_string(),
        Identity::RoleSession { role, session } => {
            let name = format!("{}/{role}", principal.account);
            let hash = digest::digest(&digest::SHA256, name.as_bytes());
            let digits = hash.as_ref().iter().take(17);
            let id: String =
                digits.map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect();
            format!("AROA{id}:{session}")
        }
    }
}

#[cfg(test)]
mod tests {
    use lacewing_model::AccountId;

    use super::*;

    #[test]
    fn a_roles_id_is_stable_and_of_the_usual_form() {
        let principal = Principal {
            account: AccountId::new("000000000000").expect("valid"),
            identity: Identity::RoleSession { role: "lambda".into(), session: "hello".into() },
        };
        let id = user_id(&principal);
        assert_eq!(id, user_id(&principal));
        let (role, session) = id.split_once(':').expect("two parts");
        assert_eq!((role.len(), &role[..4], session), (21, "AROA", "hello"));
    }
}
