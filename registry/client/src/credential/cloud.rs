//! What to do where a cloud's registry wants credentials: they live for hours, so a helper program makes them. Pure.

/// The advice for a registry of one of the large clouds, by its host.
pub(crate) fn advice(host: &str) -> Option<String> {
    let (program, helper, login) = if host == "public.ecr.aws" {
        let login =
            "aws ecr-public get-login-password --region us-east-1 | fluyt login -u AWS --password-stdin public.ecr.aws";
        ("docker-credential-ecr-login", "ecr-login", login.to_owned())
    } else if let Some(region) = ecr_region(host) {
        let login =
            format!("aws ecr get-login-password --region {region} | fluyt login -u AWS --password-stdin {host}");
        ("docker-credential-ecr-login", "ecr-login", login)
    } else if host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev") {
        let login =
            format!("gcloud auth print-access-token | fluyt login -u oauth2accesstoken --password-stdin {host}");
        ("docker-credential-gcloud", "gcloud", login)
    } else if let Some(name) =
        [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().find_map(|end| host.strip_suffix(end))
    {
        let login = format!(
            "az acr login --name {name} --expose-token --output tsv --query accessToken | \
             fluyt login -u 00000000-0000-0000-0000-000000000000 --password-stdin {host}"
        );
        ("docker-credential-acr-env", "acr-env", login)
    } else {
        return None;
    };
    Some(format!(
        "log in with `{login}`, or let `{program}` do it, with `\"credHelpers\": {{\"{host}\": \"{helper}\"}}` in Docker's config.json"
    ))
}

/// `123456789012.dkr.ecr.eu-west-1.amazonaws.com`: the region.
fn ecr_region(host: &str) -> Option<&str> {
    let (_, rest) = host.split_once(".dkr.ecr.").or_else(|| host.split_once(".dkr.ecr-fips."))?;
    rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_has_its_own_program() {
        for (host, parts) in [
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                &["docker-credential-ecr-login", "--region eu-west-1 "][..],
            ),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", &["--region cn-north-1 "][..]),
            ("public.ecr.aws", &["aws ecr-public", "\"public.ecr.aws\": \"ecr-login\""][..]),
            ("eu.gcr.io", &["docker-credential-gcloud", "{\"eu.gcr.io\": \"gcloud\"}"][..]),
            ("europe-west1-docker.pkg.dev", &["oauth2accesstoken"][..]),
            ("team.azurecr.io", &["--name team ", "docker-credential-acr-env"][..]),
        ] {
            let advice = advice(host).unwrap();
            assert!(parts.iter().all(|part| advice.contains(part)), "{host}: {advice}");
        }
        for host in ["docker.io", "ghcr.io", "gcr.io.example.org", "azurecr.io", "127.0.0.1:5000"] {
            assert_eq!(advice(host), None, "{host}");
        }
    }
}
