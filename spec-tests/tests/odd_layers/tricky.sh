set -e
# A folder that is replaced: whiteouts for what vanished, no opaque mark.
rm -r /lower/replaced && mkdir /lower/replaced && echo new > /lower/replaced/new
# Gone, one by one and as a whole.
rm /lower/gone && rm -r /lower/gone-folder
# Copied up and as before: left out.
cp -a /lower/same /tmp/same && cat /tmp/same > /lower/same && touch -r /tmp/same /lower/same && rm /tmp/same
: >> /lower/opened
ln /lower/linked /tmp/noise && rm /tmp/noise
mkdir /lower/touched/x && rmdir /lower/touched/x
# A new name of a lower file.
ln /lower/first /lower/second
# Names of one file that is new.
echo together > /lower/one && ln /lower/one /lower/two
# A file for a folder, a folder for a file, a link for a file.
rm -r /lower/was-folder && echo now > /lower/was-folder
rm /lower/was-file && mkdir /lower/was-file
rm /lower/was-link && ln -s elsewhere /lower/was-link
# Changed by mode or owner alone.
chmod 4711 /lower/mode && chown 33:7 /lower/owner
# Times before 1970, sparse, long and foreign names, a pipe.
touch -d '1969-12-31 23:59:00' /lower/old
truncate -s 5242880 /lower/sparse
long=$(printf 'n%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
mkdir -p "/lower/$long$long$long/$long$long$long" && echo x > "/lower/$long$long$long/$long$long$long/file"
echo x > "/lower/$(printf '\303\251')"
mkfifo /lower/pipe && ln -s "/$long$long$long$long$long$long" /lower/far
mv /lower/moves /lower/moved
