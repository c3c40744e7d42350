-- Moist air. Magnus' formula over water with the coefficients of WMO-No. 8 (Guide to Instruments and Methods of
-- Observation, annex 4.B): 6.112 hPa, 17.62, 243.12 °C, for -45 to 60 °C.
CREATE OR REPLACE FUNCTION saturation_hpa(celsius double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 6.112 * exp(17.62 * celsius / nullif(243.12 + celsius, 0))
$$;

-- The temperature at which this air would be saturated; null without any humidity.
CREATE OR REPLACE FUNCTION dew_point_celsius(celsius double precision, humidity_percent double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 243.12 * g / nullif(17.62 - g, 0)
      FROM (SELECT ln(nullif(greatest(humidity_percent, 0), 0) / 100)
                   + 17.62 * celsius / nullif(243.12 + celsius, 0) AS g) magnus
$$;

-- Relative humidity at the coldest place of an outer wall, where mould begins at 80 % (ISO 13788; DIN 4108-2, whose least
-- temperature factor of such a place is 0.7: it lies 0.7 of the way from the temperature outside to that of the room).
CREATE OR REPLACE FUNCTION corner_humidity_percent(
    celsius double precision, humidity_percent double precision, outside_celsius double precision
) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT least(100, humidity_percent * saturation_hpa(celsius)
                      / nullif(saturation_hpa(outside_celsius + 0.7 * (celsius - outside_celsius)), 0))
$$;
