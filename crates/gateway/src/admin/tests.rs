//! Routes, and the document that describes them.

use http::Request;

use super::*;

fn find(method: &str, path: &str) -> Option<Route> {
    let request = Request::builder().method(method).uri(path).body(()).expect("valid");
    route(&request.into_parts().0).expect("UTF-8")
}

#[test]
fn paths_are_routed_and_strangers_are_not() {
    assert_eq!(find("GET", "/_lacewing/v1/info"), Some(Route::Info));
    assert_eq!(find("GET", "/_lacewing/v1/doctor/"), Some(Route::Doctor));
    let name = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ax";
    let logs = find("GET", &format!("/_lacewing/v1/functions/{name}/logs?limit=3"));
    let Some(Route::Logs { name }) = logs else { panic!("{logs:?}") };
    assert_eq!(name, "arn:aws:lambda:us-east-1:000000000000:function:x");
    for (method, path) in [
        ("POST", "/_lacewing/v1/info"),
        ("GET", "/_lacewing/v1/infos"),
        ("GET", "/_lacewing/v2/info"),
        ("GET", "/_lacewing/v1info"),
    ] {
        assert_eq!(find(method, path), None, "{method} {path}");
    }
}

#[test]
fn the_openapi_document_describes_exactly_the_routes() {
    let text = include_str!("../../../../docs/openapi.json");
    let document: Value = serde_json::from_str(text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut described: Vec<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("an object").keys();
            methods.map(|method| (method.clone(), path.clone()))
        })
        .filter(|(_, path)| !["/health", "/metrics"].contains(&path.as_str()))
        .collect();
    described.sort();
    let mut routes: Vec<(String, String)> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    routes.sort();
    assert_eq!(described, routes);
    assert!(paths.contains_key("/health") && paths.contains_key("/metrics"));
    for (_, path) in routes {
        let concrete = path.replace(['{', '}'], "");
        assert!(find("GET", &concrete).is_some(), "{path} is described and not served");
    }
}
