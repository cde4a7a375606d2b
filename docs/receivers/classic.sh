openssl dgst -sha256 -hmac "$WEBHOOK_SECRET" -r body | cut -d ' ' -f 1
