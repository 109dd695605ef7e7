//! An error of a store -> what is wrong with it, and what to do.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};

use super::connector::Trouble;
use super::settings::Built;
use super::{CloudAddress, CloudError, CloudSettings, Provider};

/// Where keys come from when nothing names any.
pub(super) const INSTANCE: &str = "the instance's metadata service";

/// Names the service by which roles are taken on.
pub(super) const STS: &str = "AWS_ENDPOINT_URL_STS";

/// An error and its causes in one line, what is said twice left out.
pub(in crate::storage) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first cause of a type.
pub(in crate::storage) fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether the store refused a request because of who asks. object_store has a kind of error for that with some requests
/// only, lists and deletions not among them, and shows nobody the status: its words have to do.
pub(in crate::storage) fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    const STATUS: &str = "Server returned non-2xx status code: ";
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if said.strip_prefix(STATUS).is_some_and(|status| status.starts_with("401") || status.starts_with("403"))
            || (said.starts_with("DeleteObjects request failed") && said.ends_with("(code: AccessDenied)"))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What is between two tags of an answer.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.split_once(&format!("<{name}>"))?.1;
    rest.split_once("</").map(|(value, _)| value)
}

/// Says of a store that cannot be used why, and what to do.
pub(super) fn diagnose(settings: &CloudSettings, built: &Built, error: &object_store::Error) -> CloudError {
    let (endpoint, identity) = (&built.endpoint, &built.identity);
    let (what, bucket) = (settings.address.provider.bucket(), &settings.address.bucket);
    let region = if settings.address.provider == Provider::S3 { "AWS_REGION" } else { "the region" };
    let all = chain(error);

    // Only the address at which a role is taken on is kept secret: what is shown there is part of it.
    if all.contains("REDACTED") {
        let sts = settings.variable(STS).map_or_else(|| format!("Amazon's STS ({STS} is not set)"), str::to_owned);
        let why = if all.contains("WebIdentityToken") { innermost(error) } else { all };
        return settings.error(format!("no keys come from {sts} for {identity}: {why}"));
    }
    if let Some(trouble) = cause::<Trouble>(error) {
        return settings.error(match trouble {
            Trouble::Moved { region: Some(there), .. } => {
                format!("the {what} `{bucket}` is in the region {there}: set {region}={there}")
            }
            Trouble::Moved { .. } => {
                format!("{endpoint}: {trouble}: the {what} is elsewhere, or this is not the API of a store: correct the region or the endpoint")
            }
            Trouble::Refused { .. } | Trouble::Silent(_) | Trouble::Stalled(_) => {
                format!("{endpoint}: {trouble}: try again later, or look whether it is the right endpoint")
            }
        });
    }
    // Looked at before what could not be reached: nothing is sent without keys.
    if all.contains("169.254.") || all.contains("metadata.google.internal") {
        return settings.error(format!("there are no credentials: {}", no_credentials(settings.address.provider)));
    }
    if let Some(http) = cause::<HttpError>(error)
        && matches!(http.kind(), HttpErrorKind::Connect | HttpErrorKind::Request | HttpErrorKind::Unknown)
    {
        if all.contains("certificate") || all.contains("UnknownIssuer") {
            return settings.error(format!(
                "the certificate of {endpoint} is not trusted ({}): name the authority that made it with --store-ca FILE",
                innermost(http)
            ));
        }
        return settings.error(format!(
            "cannot reach {endpoint}: {}: correct the endpoint, or look at the network between",
            innermost(http)
        ));
    }
    let code = tag(&all, "Code").unwrap_or_default();
    let reason = match code {
        "NoSuchBucket" | "ContainerNotFound" => absent(what, bucket, endpoint),
        "InvalidAccessKeyId" => format!("{endpoint} does not know {identity}: correct the key"),
        "SignatureDoesNotMatch" => format!(
            "{endpoint} refuses the signature of {identity}: its secret is a wrong one, or the clock of this machine is"
        ),
        "RequestTimeTooSkewed" => {
            format!("{endpoint} refuses requests because the clock of this machine is wrong: set it")
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            format!("the session token of {identity} has expired: get a new one")
        }
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            let there = tag(&all, "Region").map(|there| format!(", to {there}")).unwrap_or_default();
            format!("{endpoint} is not in the region that requests are signed for: set {region}{there}")
        }
        "AccessDenied" => forbidden(settings, built),
        _ => match error {
            object_store::Error::NotFound { .. } => absent(what, bucket, endpoint),
            object_store::Error::PermissionDenied { .. } => forbidden(settings, built),
            object_store::Error::Unauthenticated { .. } => format!("{endpoint} does not accept {identity}: {all}"),
            _ => format!("{endpoint}: {all}: look whether it is the right endpoint"),
        },
    };
    settings.error(reason)
}

fn forbidden(settings: &CloudSettings, built: &Built) -> String {
    let CloudAddress { provider, bucket, .. } = &settings.address;
    format!(
        "{} does not let {} list the {} `{bucket}`: {}",
        built.endpoint,
        built.identity,
        provider.bucket(),
        permissions(*provider)
    )
}

fn absent(what: &str, bucket: &str, endpoint: &str) -> String {
    format!("there is no {what} `{bucket}` at {endpoint}: make it, or correct the name")
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(error) = last.source() {
        last = error;
    }
    last.to_string()
}

fn no_credentials(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => {
            "none in the environment, in a profile, from web identity or a container, and no metadata service of an instance answers: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        }
        Provider::Gcs => "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account",
        Provider::Azure => "set AZURE_STORAGE_KEY, or AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID",
    }
}

/// What the identity has to be allowed.
pub(super) fn permissions(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => {
            "it needs s3:ListBucket and s3:ListBucketMultipartUploads on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on what is in it"
        }
        Provider::Gcs => {
            "it needs the role Storage Object Admin (roles/storage.objectAdmin) on the bucket; to send clients to it, Service Account Token Creator on itself too"
        }
        Provider::Azure => {
            "it needs the role Storage Blob Data Contributor on the container; to send clients to it, Storage Blob Delegator on the account too"
        }
    }
}
