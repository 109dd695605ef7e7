//! Azure blob storage. The account is `AZURE_STORAGE_ACCOUNT` (or `AZURE_STORAGE_ACCOUNT_NAME`), its key
//! `AZURE_STORAGE_KEY` (or `AZURE_STORAGE_ACCOUNT_KEY`); or both, and an endpoint, are in
//! `AZURE_STORAGE_CONNECTION_STRING`. Otherwise: `AZURE_STORAGE_SAS_TOKEN`; a service principal
//! (`AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`, `AZURE_TENANT_ID`); workload identity (`AZURE_FEDERATED_TOKEN_FILE`); the
//! managed identity of the instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ClientOptions;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::CloudError;
use super::connector::Connector;
use super::settings::{Built, CloudSettings, is_public, retries};

pub(super) fn build(settings: &CloudSettings, options: ClientOptions) -> Result<Built, CloudError> {
    let mut given = from_connection_string(settings)?;
    for (ours, theirs) in [
        ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
        ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
        ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
        ("MSI_ENDPOINT", AzureConfigKey::MsiEndpoint),
        ("IDENTITY_ENDPOINT", AzureConfigKey::MsiEndpoint),
    ] {
        if let Some(value) = settings.variable(ours) {
            given.entry(ours.to_owned()).or_insert((theirs, value.to_owned()));
        }
    }
    for (name, value) in settings.variables.iter().filter(|(_, value)| !value.is_empty()) {
        if name.starts_with("AZURE_")
            && let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>()
        {
            given.insert(name.clone(), (key, value.clone()));
        }
    }
    let value =
        |wanted: AzureConfigKey| given.values().find(|(key, _)| *key == wanted).map(|(_, value)| value.as_str());
    let Some(account) = value(AzureConfigKey::AccountName) else {
        return Err(settings.error(
            "no account is named: set AZURE_STORAGE_ACCOUNT and a key (AZURE_STORAGE_KEY), or AZURE_STORAGE_CONNECTION_STRING",
        ));
    };
    let endpoint = value(AzureConfigKey::Endpoint)
        .map_or_else(|| format!("https://{account}.blob.core.windows.net"), str::to_owned);
    let url = settings.endpoint("the endpoint of the account", &endpoint, "AZURE_ALLOW_HTTP")?;
    let signs = !settings.is_on("AZURE_SKIP_SIGNATURE");
    let identity = [
        (AzureConfigKey::AccessKey, "the account's key"),
        (AzureConfigKey::SasKey, "a shared access signature"),
        (AzureConfigKey::FederatedTokenFile, "workload identity"),
        (AzureConfigKey::ClientSecret, "the service principal of AZURE_CLIENT_ID"),
    ];
    let identity = identity.into_iter().find(|(key, _)| value(*key).is_some());
    let identity = identity.map_or("the managed identity of the instance", |(_, identity)| identity).to_owned();

    let builder = MicrosoftAzureBuilder::new()
        .with_client_options(options.with_allow_http(url.scheme() == "http"))
        .with_http_connector(Connector::default())
        .with_retry(retries());
    let builder = given.values().fold(builder, |builder, (key, value)| builder.with_config(*key, value));
    let builder = builder.with_container_name(&settings.address.bucket);
    let store = builder.build().map_err(|error| settings.error(super::diagnose::chain(&error)))?;
    Ok(Built {
        driver: Arc::new(store),
        endpoint: url.as_str().trim_end_matches('/').to_owned(),
        public: is_public(&url),
        // Blocks may be as small as one byte.
        least_part_bytes: 0,
        signs,
        identity,
    })
}

type Given = BTreeMap<String, (AzureConfigKey, String)>;

/// `Name=value;...`, as the portal shows it for copying.
fn from_connection_string(settings: &CloudSettings) -> Result<Given, CloudError> {
    let mut given = Given::new();
    let Some(text) = settings.variable("AZURE_STORAGE_CONNECTION_STRING") else { return Ok(given) };
    let mut suffix = None;
    for field in text.split(';').filter(|field| !field.trim().is_empty()) {
        // What is wrong with it is not said: it holds a key.
        let (name, value) = field.split_once('=').ok_or_else(|| {
            settings.error("AZURE_STORAGE_CONNECTION_STRING is not one: expected AccountName=...;AccountKey=...")
        })?;
        let key = match name.trim().to_ascii_lowercase().as_str() {
            "accountname" => AzureConfigKey::AccountName,
            "accountkey" => AzureConfigKey::AccessKey,
            "sharedaccesssignature" => AzureConfigKey::SasKey,
            "blobendpoint" => AzureConfigKey::Endpoint,
            "usedevelopmentstorage" => AzureConfigKey::UseEmulator,
            "endpointsuffix" => {
                suffix = Some(value.trim());
                continue;
            }
            _ => continue,
        };
        given.insert(name.to_owned(), (key, value.trim().to_owned()));
    }
    let has = |wanted: AzureConfigKey| given.values().any(|(key, _)| *key == wanted);
    if let Some(suffix) = suffix
        && !has(AzureConfigKey::Endpoint)
        && let Some((_, account)) = given.values().find(|(key, _)| *key == AzureConfigKey::AccountName)
    {
        let endpoint = format!("https://{account}.blob.{suffix}");
        given.insert("EndpointSuffix".to_owned(), (AzureConfigKey::Endpoint, endpoint));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::cloud::CloudAddress;

    fn build_with(variables: &[(&str, &str)]) -> Result<Built, String> {
        let settings = CloudSettings {
            address: CloudAddress::parse("az://container").unwrap().unwrap(),
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            authorities: None,
            redirect_endpoint: None,
        };
        let options = settings.client_options().map_err(|error| error.to_string())?;
        build(&settings, options).map_err(|error| error.to_string())
    }

    #[test]
    fn accounts_are_named_in_many_ways() {
        let endpoint = |variables: &[(&str, &str)]| build_with(variables).map(|built| (built.endpoint, built.identity));
        let key = "a2V5";
        let by_key = |endpoint: &str| Ok((endpoint.to_owned(), "the account's key".to_owned()));
        let named = [("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_KEY", key)];
        assert_eq!(endpoint(&named), by_key("https://acc.blob.core.windows.net"));
        let named = [("AZURE_STORAGE_ACCOUNT_NAME", "acc"), ("AZURE_STORAGE_ACCOUNT_KEY", key)];
        assert_eq!(endpoint(&named), by_key("https://acc.blob.core.windows.net"));
        let text =
            "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2U=;EndpointSuffix=core.chinacloudapi.cn";
        assert_eq!(
            endpoint(&[("AZURE_STORAGE_CONNECTION_STRING", text)]),
            by_key("https://acc.blob.core.chinacloudapi.cn")
        );
        let text = "AccountName=acc;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/acc";
        assert_eq!(endpoint(&[("AZURE_STORAGE_CONNECTION_STRING", text)]), by_key("http://127.0.0.1:1/acc"));
        let sas = [("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x")];
        assert_eq!(endpoint(&sas).unwrap().1, "a shared access signature");
        assert!(endpoint(&[]).unwrap_err().contains("AZURE_STORAGE_ACCOUNT"));
        let error = endpoint(&[("AZURE_STORAGE_CONNECTION_STRING", "hidden")]).unwrap_err();
        assert!(error.contains("is not one") && !error.contains("hidden"), "{error}");
    }
}
