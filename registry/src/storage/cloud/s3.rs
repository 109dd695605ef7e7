//! S3, Amazon's and all that speak like it.
//!
//! Keys come from the first of: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; web identity
//! (`AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`, as EKS sets them); the profile `AWS_PROFILE` or `default`; container
//! credentials (EKS Pod Identity, ECS); the instance's metadata service.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, resolve_bucket_region};

use super::CloudError;
use super::connector::Connector;
use super::container::{self, ContainerCredentials};
use super::diagnose::STS;
use super::profile::{self, Profile, ProfileCredentials, ProfileFiles};
use super::settings::{Built, CloudSettings, is_public, retries};

/// All parts but the last have at least this size, on S3 and on most that speak like it.
const LEAST_PART_BYTES: u64 = 5 * 1024 * 1024;

pub(super) async fn build(settings: &CloudSettings, options: ClientOptions) -> Result<Built, CloudError> {
    let files = ProfileFiles::new(&settings.variables);
    let profile = files.read().map_err(|error| settings.error(error))?;
    let bucket = &settings.address.bucket;

    let mut builder = AmazonS3Builder::new()
        .with_client_options(options.clone())
        .with_http_connector(Connector::default())
        .with_retry(retries());
    for (name, value) in settings.variables.iter().filter(|(_, value)| !value.is_empty()) {
        if name.starts_with("AWS_")
            && let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(bucket);

    let (variable, endpoint) = match (settings.variable("AWS_ENDPOINT_URL_S3"), endpoint(settings)) {
        (Some(endpoint), _) => ("AWS_ENDPOINT_URL_S3", Some(endpoint)),
        (None, Some((variable, endpoint))) => (variable, Some(endpoint)),
        (None, None) => ("the profile's endpoint_url", profile.get("endpoint_url").map(String::as_str)),
    };
    let endpoint = endpoint.map(|endpoint| settings.endpoint(variable, endpoint, "AWS_ALLOW_HTTP")).transpose()?;

    let region = settings.variable("AWS_REGION").or_else(|| settings.variable("AWS_DEFAULT_REGION"));
    let region = match region.or(profile.get("region").map(String::as_str)) {
        Some(region) => region.to_owned(),
        // Those that speak like S3 take any, and most of them this one.
        None if endpoint.is_some() => "us-east-1".to_owned(),
        None => resolve_bucket_region(bucket, &options).await.map_err(|error| {
            settings.error(format!(
                "the region of the bucket is not set and could not be asked for ({error}): set AWS_REGION"
            ))
        })?,
    };
    builder = builder.with_region(&region);

    let url = match &endpoint {
        Some(url) => {
            let https = url.scheme() == "https";
            builder = builder.with_endpoint(url.as_str().trim_end_matches('/')).with_allow_http(!https);
            // TLS protects the body already; hashing it once more would cost as much as all else.
            builder = builder.with_unsigned_payload(https);
            url.clone()
        }
        None => {
            builder = builder.with_unsigned_payload(true);
            // Amazon's certificates hold one label before their own name.
            let by_host = !bucket.contains('.');
            if settings.variable("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_none() {
                builder = builder.with_virtual_hosted_style_request(by_host);
            }
            let url = format!("https://s3.{region}.amazonaws.com");
            object_store::signer::Url::parse(&url)
                .map_err(|_| settings.error(format!("the region `{region}` is not one: set AWS_REGION")))?
        }
    };

    let identity;
    (builder, identity) = identify(settings, builder, &files, &profile, &options)?;
    let store = builder.build().map_err(|error| settings.error(super::diagnose::chain(&error)))?;
    Ok(Built {
        driver: Arc::new(store),
        endpoint: url.as_str().trim_end_matches('/').to_owned(),
        public: is_public(&url),
        least_part_bytes: LEAST_PART_BYTES,
        signs: !settings.is_on("AWS_SKIP_SIGNATURE"),
        identity,
    })
}

fn endpoint(settings: &CloudSettings) -> Option<(&'static str, &str)> {
    ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"].into_iter().find_map(|name| Some((name, settings.variable(name)?)))
}

/// Whose keys are used, and where they come from.
fn identify(
    settings: &CloudSettings,
    builder: AmazonS3Builder,
    files: &ProfileFiles,
    profile: &Profile,
    options: &ClientOptions,
) -> Result<(AmazonS3Builder, String), CloudError> {
    let all_set = |names: &[&str]| names.iter().all(|name| settings.variable(name).is_some());
    if settings.is_on("AWS_SKIP_SIGNATURE") {
        return Ok((builder, "nobody (AWS_SKIP_SIGNATURE)".into()));
    }
    match (settings.variable("AWS_ACCESS_KEY_ID"), settings.variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(_)) => return Ok((builder, format!("the key {id} of AWS_ACCESS_KEY_ID"))),
        (Some(_), None) => {
            return Err(settings.error("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not: set both"));
        }
        (None, Some(_)) => {
            return Err(settings.error("AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not: set both"));
        }
        (None, None) => {}
    }
    if all_set(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"]) {
        check_sts(settings)?;
        let role = settings.variable("AWS_ROLE_ARN").unwrap_or_default();
        return Ok((builder, format!("the role {role} by AWS_WEB_IDENTITY_TOKEN_FILE")));
    }
    if let Some(credential) = profile::credential(profile) {
        let identity = format!("the key {} of the profile `{}`", credential.key_id, files.name);
        let credentials = ProfileCredentials::new(files.clone(), credential);
        return Ok((builder.with_credentials(Arc::new(credentials)), identity));
    }
    if let (Some(file), Some(role)) = (profile.get("web_identity_token_file"), profile.get("role_arn")) {
        check_sts(settings)?;
        let builder = builder
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file)
            .with_config(AmazonS3ConfigKey::RoleArn, role);
        return Ok((builder, format!("the role {role} of the profile `{}`", files.name)));
    }
    let other = ["role_arn", "credential_process", "sso_session", "sso_start_url", "login_session"];
    if let Some(key) = other.into_iter().find(|key| profile.contains_key(*key)) {
        return Err(settings.error(format!(
            "the profile `{}` gets its keys by `{key}`, which is not understood here: put keys into the environment with `aws configure export-credentials --profile {} --format env`, or choose another AWS_PROFILE",
            files.name, files.name
        )));
    }
    if files.named {
        return Err(settings.error(format!("the profile `{}` holds no keys", files.name)));
    }
    if all_set(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]) {
        return Ok((builder, "the container's credentials".into()));
    }
    if let Some(credentials) = ContainerCredentials::of(settings, options)? {
        let identity = format!("the credentials of {}", container::ADDRESS);
        return Ok((builder.with_credentials(Arc::new(credentials)), identity));
    }
    if settings.is_on("AWS_EC2_METADATA_DISABLED") {
        return Err(
            settings.error("there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
        );
    }
    // Amazon's own name for it; object_store has another.
    let builder = match settings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
        Some(address) => builder.with_metadata_endpoint(address.trim_end_matches('/')),
        None => builder,
    };
    Ok((builder, super::diagnose::INSTANCE.into()))
}

/// Where a role is taken on: what is shown there is as good as keys, so object_store sends it over TLS alone.
fn check_sts(settings: &CloudSettings) -> Result<(), CloudError> {
    match settings.variable(STS) {
        Some(address) if !address.starts_with("https://") => Err(settings.error(format!(
            "{STS} is `{address}`: expected https://, since the statement that is shown there is as good as keys"
        ))),
        _ => Ok(()),
    }
}
