mkdir -p d/s; touch d/s/f; chmod 711 d/s
