header() { tr -d '\r' <headers | grep -i "^$1:" | cut -d ' ' -f 2-; }
ID=$(header webhook-id) TIMESTAMP=$(header webhook-timestamp)
case $TIMESTAMP in '' | *[!0-9]*) echo 'no timestamp'; exit 1 ;; esac
AGE=$(($(date +%s) - TIMESTAMP))
if [ "$AGE" -gt 300 ] || [ "$AGE" -lt -300 ]; then echo 'too old'; exit 1; fi

KEY=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
WANT=v1,$({ printf %s "$ID.$TIMESTAMP."; cat body; } |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | openssl base64 -A)
for SIGNATURE in $(header webhook-signature); do
  if [ "$SIGNATURE" = "$WANT" ]; then echo "verified $ID"; exit; fi
done
echo 'not signed with this secret'
exit 1
