//! Google Cloud Storage. Keys come from the first of: `GOOGLE_SERVICE_ACCOUNT` (a file) or `GOOGLE_SERVICE_ACCOUNT_KEY`,
//! `GOOGLE_APPLICATION_CREDENTIALS`, what `gcloud auth application-default login` left, the instance's metadata service.
//! With `STORAGE_EMULATOR_HOST`, as Google's own clients read it, an emulator is used, and nothing is signed.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::signer::Url;

use super::CloudError;
use super::connector::Connector;
use super::settings::{Built, CloudSettings, is_public, retries};

const ENDPOINT: &str = "https://storage.googleapis.com";
const LEAST_PART_BYTES: u64 = 5 * 1024 * 1024;

pub(super) fn build(settings: &CloudSettings, options: ClientOptions) -> Result<Built, CloudError> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(options.clone())
        .with_http_connector(Connector::default())
        .with_retry(retries());
    for (name, value) in settings.variables.iter().filter(|(_, value)| !value.is_empty()) {
        if (name.starts_with("GOOGLE_") || name == "SERVICE_ACCOUNT")
            && let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(&settings.address.bucket);

    let mut signs = !settings.is_on("GOOGLE_SKIP_SIGNATURE");
    let mut url = Url::parse(ENDPOINT).map_err(|error| settings.error(error.to_string()))?;
    let emulator = settings.variable("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
        true => host.to_owned(),
        false => format!("http://{host}"),
    });
    let given = emulator.as_deref().map(|host| ("STORAGE_EMULATOR_HOST", host));
    let given = given.or_else(|| Some(("GOOGLE_BASE_URL", settings.variable("GOOGLE_BASE_URL")?)));
    if let Some((variable, endpoint)) = given {
        url = settings.endpoint(variable, endpoint, "GOOGLE_ALLOW_HTTP")?;
        builder = builder
            .with_base_url(url.as_str().trim_end_matches('/'))
            .with_client_options(options.with_allow_http(url.scheme() == "http"));
    }
    if emulator.is_some() {
        builder = builder.with_skip_signature(true);
        // Otherwise credentials are looked for all the same, and sent with writes.
        builder = builder.with_bearer_token("emulator");
        builder = builder.with_http_connector(Connector { anonymous: true, ..Default::default() });
        signs = false;
    }
    let names = [
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ];
    let identity = match names.into_iter().find(|name| settings.variable(name).is_some()) {
        _ if !signs => "nobody (requests are not signed)".to_owned(),
        Some(name) => format!("the account of {name}"),
        None => {
            "the default credentials of gcloud or of the instance (GOOGLE_APPLICATION_CREDENTIALS names others)".into()
        }
    };
    let store = builder.build().map_err(|error| settings.error(super::diagnose::chain(&error)))?;
    Ok(Built {
        driver: Arc::new(store),
        endpoint: url.as_str().trim_end_matches('/').to_owned(),
        public: is_public(&url),
        least_part_bytes: LEAST_PART_BYTES,
        signs,
        identity,
    })
}
